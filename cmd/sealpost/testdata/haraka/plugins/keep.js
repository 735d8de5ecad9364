'use strict'

// Takes mail from those who have logged in under TLS, and keeps each as a file, beside one that says how it came.
// Two senders are special: mail from soft@ is refused for now once, mail to all who write as hard@ for good.

const fs = require('node:fs')
const path = require('node:path')
const { finished } = require('node:stream')

exports.register = function () {
  this.refused = new Set()
  this.register_hook('queue', 'keep')
  this.register_hook('queue_outbound', 'keep') // what a user hands in
}

exports.hook_lookup_rdns = (next) => next(OK, 'localhost') // no DNS

exports.hook_mail = (next, connection, params) => {
  if (!connection.tls.enabled || !connection.notes.auth_user) return next(DENY, '5.7.0 log in under TLS first')
  connection.transaction.notes.parameters = params[1]
  next(OK)
}

exports.hook_rcpt = (next, connection, params) => {
  if (connection.transaction.mail_from.user === 'hard') {
    return next(DENY, `5.1.1 ${params[0].address} is not here`)
  }
  next(OK)
}

exports.keep = function (next, connection) {
  const { transaction } = connection
  const from = transaction.mail_from.address
  if (transaction.mail_from.user === 'soft' && !this.refused.has(from)) {
    this.refused.add(from)
    return next(DENYSOFT, '4.3.2 come back later')
  }
  const file = path.join(process.env.SEALPOST_KEEP, transaction.uuid)
  const how = {
    from,
    to: transaction.rcpt_to.map((to) => to.address),
    connection: connection.uuid,
    user: connection.notes.auth_user,
    protocol: connection.tls.cipher?.version,
    parameters: transaction.notes.parameters,
  }
  const out = fs.createWriteStream(`${file}.eml`)
  finished(out, (err) => {
    if (err) return next(DENYSOFT, err.message)
    fs.writeFileSync(`${file}.part`, JSON.stringify(how))
    fs.renameSync(`${file}.part`, `${file}.json`) // complete from here on
    next(OK)
  })
  transaction.message_stream.pipe(out)
}
