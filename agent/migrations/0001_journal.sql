-- The agent's durable memory. One writer; every promise is one transaction.

-- incarnation, last_epoch, record_high_water, time_zone, and the steady clock.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Every command that was begun or answered; kept 30 days after its acknowledgement.
CREATE TABLE commands (
    name            TEXT PRIMARY KEY,
    feeder          TEXT NOT NULL,
    robot           TEXT NOT NULL,
    number          BIGINT NOT NULL,
    kind            TEXT NOT NULL,
    body_hash       BLOB NOT NULL,
    frame           BLOB NOT NULL,          -- CommandFrame as received
    journaled_epoch BIGINT NOT NULL,
    slot_epoch      BIGINT,                 -- what it was given of its robot's slot
    slot_sequence   BIGINT,
    slot_token      BIGINT,
    state           TEXT NOT NULL,          -- INTENT or OUTCOME
    outcome         BLOB,                   -- CommandUpdate as reported
    doubt           BIGINT NOT NULL,        -- 1: that outcome is UNCERTAIN
    settled         BIGINT NOT NULL,        -- 0: locks its robot's doses, or its loose values may show
    loose           BIGINT NOT NULL,        -- 1: its config values may still show
    acked_ms        BIGINT,                 -- steady clock
    resolution      BLOB                    -- Resolution of a person
);
CREATE INDEX commands_unacked ON commands (acked_ms) WHERE acked_ms IS NULL;

-- What the journal knows of each robot's slot.
CREATE TABLE robots (
    robot         TEXT PRIMARY KEY,
    slot_epoch    BIGINT NOT NULL,          -- of the last slot used
    slot_sequence BIGINT NOT NULL,
    plc_epoch     BIGINT                    -- as last read
) WITHOUT ROWID;

-- Why a feeder is held. Source 0: its hold bit is ours and must go.
CREATE TABLE holds (
    feeder   TEXT NOT NULL,
    source   BIGINT NOT NULL,
    since_ms BIGINT NOT NULL,               -- wall clock, for people
    author   TEXT NOT NULL,
    note     TEXT NOT NULL,
    PRIMARY KEY (feeder, source)
) WITHOUT ROWID;

-- Up to where each feeder's feed is in records, and what was found first.
CREATE TABLE feeders (
    feeder           TEXT PRIMARY KEY,
    total_mg         BIGINT,                -- totaliser up to which all growth is recorded
    ahead_mg         BIGINT NOT NULL DEFAULT 0, -- recorded and not yet shown by the totaliser
    meal             BIGINT,                -- the last meal of the schedule that is recorded
    first_portion_mg BIGINT,
    late_hold_ms     BIGINT,                -- until then a hold bit may be a late write of ours
    last_dose        BLOB
) WITHOUT ROWID;

-- Fed per day of the farm, of any origin.
CREATE TABLE days (
    feeder TEXT NOT NULL,
    date   TEXT NOT NULL,
    mg     BIGINT NOT NULL,
    PRIMARY KEY (feeder, date)
) WITHOUT ROWID;

-- The rolling 24 h of each feeder's envelope, on the steady clock.
CREATE TABLE envelope (
    id      INTEGER PRIMARY KEY,
    feeder  TEXT NOT NULL,
    at_ms   BIGINT NOT NULL,
    mg      BIGINT NOT NULL,
    command TEXT,                           -- reserved for it, or counted for it
    assumed BIGINT NOT NULL                 -- 1: not seen; stands for what a lost journal knew
);
CREATE INDEX envelope_command ON envelope (command) WHERE command IS NOT NULL;

-- Doses and alarms that the server does not have for good.
CREATE TABLE records (
    sequence INTEGER PRIMARY KEY,
    content  BLOB NOT NULL                  -- Record with sequence and hash
);
