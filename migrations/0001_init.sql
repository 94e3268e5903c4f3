-- The whole schema, in words that SQLite and Postgres both take: TEXT, BIGINT, BOOLEAN, BYTEA
-- (SQLite stores a blob under any declared type), partial indexes, no triggers, no sequences.
-- Times are wall-clock milliseconds for people; they decide nothing.

CREATE TABLE farms (
    farm         TEXT   NOT NULL PRIMARY KEY,
    display_name TEXT   NOT NULL,
    -- IANA; a farm's windows and days are of it.
    time_zone    TEXT   NOT NULL,
    created_ms   BIGINT NOT NULL
);

-- What every writer of a farm moves: locked first, read once and written once a transaction.
CREATE TABLE farm_heads (
    farm          TEXT   NOT NULL PRIMARY KEY REFERENCES farms (farm),
    -- The last insertion order given to a command.
    command_order BIGINT NOT NULL,
    -- The last record of the audit chain and its hash.
    audit_seq     BIGINT NOT NULL,
    audit_hash    BYTEA  NOT NULL
);

CREATE TABLE agents (
    farm          TEXT   NOT NULL REFERENCES farms (farm),
    agent         TEXT   NOT NULL,
    -- Of its last session; 0 if it never connected.
    epoch         BIGINT NOT NULL,
    -- The highest under which a command was accepted.
    command_epoch BIGINT NOT NULL,
    -- Of its journal, and the first epoch under which that journal opened a session.
    incarnation       TEXT   NOT NULL DEFAULT '',
    incarnation_since BIGINT NOT NULL DEFAULT 0,
    seen_ms       BIGINT,
    version       TEXT   NOT NULL,
    created_ms    BIGINT NOT NULL,
    PRIMARY KEY (farm, agent)
);

CREATE TABLE tanks (
    farm         TEXT NOT NULL REFERENCES farms (farm),
    tank         TEXT NOT NULL,
    display_name TEXT NOT NULL,
    group_name   TEXT NOT NULL,
    PRIMARY KEY (farm, tank)
);

CREATE TABLE robots (
    farm  TEXT NOT NULL,
    robot TEXT NOT NULL,
    agent TEXT NOT NULL,
    PRIMARY KEY (farm, robot),
    FOREIGN KEY (farm, agent) REFERENCES agents (farm, agent)
);

CREATE TABLE feeders (
    farm         TEXT   NOT NULL,
    feeder       TEXT   NOT NULL,
    -- The one agent it is bound to; another's claim is refused.
    agent        TEXT   NOT NULL,
    robot        TEXT   NOT NULL,
    tank         TEXT   NOT NULL,
    display_name TEXT   NOT NULL,
    -- pasamanos.v1.Limits, pasamanos.v1.Capabilities.
    limits       BYTEA  NOT NULL,
    capabilities BYTEA  NOT NULL,
    PRIMARY KEY (farm, feeder),
    FOREIGN KEY (farm, agent) REFERENCES agents (farm, agent),
    FOREIGN KEY (farm, robot) REFERENCES robots (farm, robot),
    FOREIGN KEY (farm, tank) REFERENCES tanks (farm, tank)
);

-- The highest number of a feeder is the one in force: what its PLC was last read to run.
CREATE TABLE config_versions (
    farm       TEXT    NOT NULL,
    feeder     TEXT    NOT NULL,
    number     BIGINT  NOT NULL,
    etag       TEXT    NOT NULL,
    -- COMMAND, FARM, CALIBRATION.
    author     TEXT    NOT NULL,
    -- The request id of the command that made it.
    command    TEXT,
    -- pasamanos.v1.FeederConfig.
    config     BYTEA   NOT NULL,
    -- Whether the rules would refuse it.
    invalid    BOOLEAN NOT NULL,
    created_ms BIGINT  NOT NULL,
    PRIMARY KEY (farm, feeder, number),
    FOREIGN KEY (farm, feeder) REFERENCES feeders (farm, feeder)
);

CREATE TABLE commands (
    farm            TEXT   NOT NULL,
    request_id      TEXT   NOT NULL,
    feeder          TEXT   NOT NULL,
    robot           TEXT   NOT NULL,
    agent           TEXT   NOT NULL,
    epoch           BIGINT NOT NULL,
    -- Insertion order within the farm.
    ord             BIGINT NOT NULL,
    -- Within the feeder; whoever prunes old commands keeps the newest of each feeder.
    number          BIGINT NOT NULL,
    -- update_config, feed_now, hold, resume, reset_fault.
    kind            TEXT   NOT NULL,
    -- The action of a pasamanos.v1.CommandFrame.
    action          BYTEA  NOT NULL,
    request_hash    BYTEA  NOT NULL,
    boot_id         TEXT   NOT NULL,
    start_before_ms BIGINT NOT NULL,
    -- ACCEPTED or terminal.
    state           TEXT   NOT NULL,
    reason          TEXT   NOT NULL,
    -- JSON object of strings; empty for none.
    metadata        TEXT   NOT NULL,
    detail          TEXT   NOT NULL,
    author          TEXT   NOT NULL,
    note            TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL,
    -- Whether the server called it UNCERTAIN, from silence.
    doubt_by_server BOOLEAN NOT NULL DEFAULT FALSE,
    settled_ms      BIGINT,
    dispensed_mg    BIGINT,
    basis           TEXT,
    -- A person's settlement: the request that made it, FED or NOT_FED, how much, who, why, when.
    resolve_request TEXT,
    resolve_verdict TEXT,
    resolve_fed_mg  BIGINT,
    resolve_who     TEXT,
    resolve_note    TEXT,
    resolved_ms     BIGINT,
    PRIMARY KEY (farm, request_id),
    FOREIGN KEY (farm, feeder) REFERENCES feeders (farm, feeder)
);

-- Pages of a farm, newest first.
CREATE UNIQUE INDEX commands_order ON commands (farm, ord);
-- Numbering, and pages of a feeder, newest first.
CREATE UNIQUE INDEX commands_number ON commands (farm, feeder, number);
-- One settlement per request.
CREATE UNIQUE INDEX commands_resolve ON commands (farm, resolve_request)
    WHERE resolve_request IS NOT NULL;
-- The outbox of a session, and what a hello settles.
CREATE INDEX commands_open ON commands (farm, agent, epoch, ord)
    WHERE state IN ('ACCEPTED', 'UNCERTAIN');
-- The locks: one unsettled dose a robot, one unsettled config a feeder.
CREATE INDEX commands_open_dose ON commands (farm, robot)
    WHERE kind = 'feed_now' AND state IN ('ACCEPTED', 'UNCERTAIN') AND resolved_ms IS NULL;
CREATE INDEX commands_open_config ON commands (farm, feeder)
    WHERE kind = 'update_config' AND state IN ('ACCEPTED', 'UNCERTAIN') AND resolved_ms IS NULL;

-- Everything that agents journaled for the history, exactly once.
CREATE TABLE records (
    farm          TEXT   NOT NULL,
    agent         TEXT   NOT NULL,
    incarnation   TEXT   NOT NULL,
    sequence      BIGINT NOT NULL,
    -- DOSE, ALARM, or GAP: from_sequence to sequence are lost.
    kind          TEXT   NOT NULL,
    from_sequence BIGINT NOT NULL,
    hash          BYTEA  NOT NULL,
    received_ms   BIGINT NOT NULL,
    PRIMARY KEY (farm, agent, incarnation, sequence),
    FOREIGN KEY (farm, agent) REFERENCES agents (farm, agent)
);

CREATE TABLE doses (
    farm         TEXT   NOT NULL REFERENCES farms (farm),
    -- {agent}-{hash of the incarnation}-{sequence}: the last part of its name.
    dose         TEXT   NOT NULL,
    feeder       TEXT   NOT NULL,
    -- When it started, by the farm PC's clock.
    at_ms        BIGINT NOT NULL,
    -- The farm's day, as the agent said.
    local_date   TEXT   NOT NULL,
    cause        BIGINT NOT NULL,
    outcome      BIGINT NOT NULL,
    dispensed_mg BIGINT,
    -- pasamanos.v1.Dose, whole, with resource names.
    body         BYTEA  NOT NULL,
    PRIMARY KEY (farm, dose)
);
CREATE INDEX doses_newest ON doses (farm, at_ms, dose);
CREATE INDEX doses_of_feeder ON doses (farm, feeder, at_ms, dose);

CREATE TABLE alarms (
    farm     TEXT   NOT NULL REFERENCES farms (farm),
    -- As doses.dose.
    alarm    TEXT   NOT NULL,
    at_ms    BIGINT NOT NULL,
    severity BIGINT NOT NULL,
    reason   TEXT   NOT NULL,
    feeder   TEXT   NOT NULL,
    robot    TEXT   NOT NULL,
    -- pasamanos.v1.AlarmRecord.
    body     BYTEA  NOT NULL,
    PRIMARY KEY (farm, alarm)
);
CREATE INDEX alarms_newest ON alarms (farm, at_ms, alarm);

-- One chain a farm: hash = SHA-256(prev_hash, seq, kind, subject, actor, body, time).
CREATE TABLE audit (
    farm      TEXT   NOT NULL REFERENCES farms (farm),
    seq       BIGINT NOT NULL,
    prev_hash BYTEA  NOT NULL,
    hash      BYTEA  NOT NULL,
    kind      TEXT   NOT NULL,
    subject   TEXT   NOT NULL,
    actor     TEXT   NOT NULL,
    -- JSON.
    body      TEXT   NOT NULL,
    time_ms   BIGINT NOT NULL,
    PRIMARY KEY (farm, seq)
);

-- Moved by a writer that comes back after a failed commit: what failed is known to be gone once
-- this is durable.
CREATE TABLE writer (
    id         BIGINT NOT NULL PRIMARY KEY,
    recoveries BIGINT NOT NULL
);
INSERT INTO writer (id, recoveries) VALUES (1, 0);
