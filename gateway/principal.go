package gateway

import "time"

// Agent is a support agent with a local account.
type Agent struct {
	ID           string // 32 hex digits
	Address      string // in the form that was given when the agent was added
	PasswordHash Secret // argon2id, PHC string
	Created      time.Time
}

// PrincipalKind says what kind of party acts.
type PrincipalKind string

// The kinds of principals.
const (
	PrincipalAgent  PrincipalKind = "agent"
	PrincipalAdmin  PrincipalKind = "admin"  // somebody at the command line of the gateway
	PrincipalSystem PrincipalKind = "system" // the gateway itself: expiry, sweeps
)

// Principal is who does something.
type Principal struct {
	Kind PrincipalKind
	ID   string // an Agent's ID; empty for the other kinds
	// Name is who an admin says to be.
	Name Secret
}

// AuditAction says what was done.
type AuditAction string

// The audited actions.
const (
	AuditLogin        AuditAction = "login"
	AuditLogout       AuditAction = "logout"
	AuditOpen         AuditAction = "open"     // the manifest and the server secret were handed out
	AuditDownload     AuditAction = "download" // ciphertext of an object was handed out
	AuditExpire       AuditAction = "expire"
	AuditHold         AuditAction = "hold" // this and the next four: what a DeliveryEvent of that name did
	AuditRelease      AuditAction = "release"
	AuditDrop         AuditAction = "drop"
	AuditReplay       AuditAction = "replay"
	AuditRetry        AuditAction = "retry"
	AuditAgentAdded   AuditAction = "agent_added"
	AuditAgentRemoved AuditAction = "agent_removed"
	AuditPassword     AuditAction = "password_set"
	AuditKeyAdded     AuditAction = "key_added"        // to the keyring
	AuditKeyUsed      AuditAction = "key_used"         // from here on values are wrapped by it
	AuditRewrapped    AuditAction = "rewrapped"        // nothing is wrapped by another key any more
	AuditKeyRemoved   AuditAction = "key_removed"      // from the keyring
	AuditHeadsRewrite AuditAction = "heads_rewrite"    // for other recovery keys
	AuditConfirmed    AuditAction = "recovery_offline" // the private recovery key is said to be offline
)

// AuditEvent is one line of who did what, when, from where, and how it ended.
type AuditEvent struct {
	At        time.Time // set by the database when zero
	Principal Principal
	Action    AuditAction
	Package   *PackageID
	Object    string // of a download; the ID of a key of the keyring
	Delivery  string // of an event of a delivery
	Agent     string // the ID of the agent who was added, removed or given a password
	Client    Secret // the address the request came from
	Reason    Secret // why, in the words of who did it
	// Outcome is "ok" or the Code of the failure.
	Outcome string
}

// Grant is the right of one session to fetch the objects of one package for a short while. Its token is
// known to the client only; here it is hashed.
type Grant struct {
	TokenHash   [32]byte
	SessionHash [32]byte
	Package     PackageID
	Expires     time.Time
}
