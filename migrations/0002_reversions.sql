-- A farm change that brought an earlier version back soon after a command was APPLIED: the version that
-- came back, the one that the command had left in force, and that command's request id.
ALTER TABLE config_versions ADD COLUMN restored BIGINT;
ALTER TABLE config_versions ADD COLUMN displaced BIGINT;
ALTER TABLE config_versions ADD COLUMN displaced_command TEXT;
