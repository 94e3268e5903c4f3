-- What was seen of config values that may still show, so that a restart does not begin anew.
ALTER TABLE commands ADD COLUMN loose_newer BLOB;                        -- FeederConfig in force after them
ALTER TABLE commands ADD COLUMN loose_rewritten BIGINT NOT NULL DEFAULT 0; -- 1: that one was written again
ALTER TABLE commands ADD COLUMN loose_showed BIGINT NOT NULL DEFAULT 0;    -- 1: they showed once
