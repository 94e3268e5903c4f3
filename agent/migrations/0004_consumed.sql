-- The slot of its epoch that was last read as consumed: a PLC that shows it free again lost memory.
ALTER TABLE robots ADD COLUMN consumed_epoch BIGINT;
ALTER TABLE robots ADD COLUMN consumed_sequence BIGINT;
