-- Doses that a PLC took and this journal did not know, because it was put back, lost or used elsewhere.
CREATE TABLE recalled (
    robot        TEXT NOT NULL,
    token        BIGINT NOT NULL,           -- of the command that it was given for
    epoch        BIGINT NOT NULL,           -- the PLC's
    sequence     BIGINT NOT NULL,
    state        TEXT NOT NULL,             -- what became of it, as the PLC's history had it (JSON)
    dispensed_mg BIGINT NOT NULL,
    at_ms        BIGINT NOT NULL,           -- when it was taken in, on the clock that does not step
    PRIMARY KEY (robot, token)
) WITHOUT ROWID;

-- Up to which slot of its epoch that was done.
ALTER TABLE robots ADD COLUMN recalled_epoch BIGINT;
ALTER TABLE robots ADD COLUMN recalled_sequence BIGINT;
-- 1: the PLC took doses that neither this journal nor its own history knows; someone at the farm must look.
ALTER TABLE robots ADD COLUMN gap BIGINT NOT NULL DEFAULT 0;
