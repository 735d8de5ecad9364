package meta

// writeQueries are those that a mail or a delivery needs inside of a transaction; they are prepared once.
func writeQueries(d dialect) []string {
	return []string{
		qSavepoint, qRelease, qUndo, qReadQueueKey, qInsertMail, qInsertAddress, qInsertDelivery,
		qInsertFingerprint, qHeard, qHeardRepeat, qUnheard, qRepeated, qCountRepeat, qInsertPackage, qInsertItem, qInsertObject, qInsertPlacement,
		qLostLeases, qLease, qCopy, qLeased, qRenewLease, qEndLease, qInsertAttempt,
		qExtendPackage, qExtendPlacements, qEventTarget + d.forUpdate, qMove, qTellAnew,
		qStatesOfMail, qCopyToGarbage, qEraseCopy, qEraseKeys, qInsertAudit,
	}
}

// readQueries are those that a mail, a delivery or an opened package needs outside of one.
func readQueries() []string {
	return []string{
		qReadQueueKey, qFingerprinted, qDue, qPackage, qItems, qObjects, qPlaces, qObject, qFindSession, qGrant, qAgent,
	}
}
