-- The platform's audit chain: what is no farm's own, such as that a farm was added.
CREATE TABLE platform_head (
    id         BIGINT NOT NULL PRIMARY KEY,
    audit_seq  BIGINT NOT NULL,
    audit_hash BYTEA  NOT NULL
);

-- Hashed as the records of a farm are.
CREATE TABLE platform_audit (
    seq       BIGINT NOT NULL PRIMARY KEY,
    prev_hash BYTEA  NOT NULL,
    hash      BYTEA  NOT NULL,
    kind      TEXT   NOT NULL,
    subject   TEXT   NOT NULL,
    actor     TEXT   NOT NULL,
    -- JSON.
    body      TEXT   NOT NULL,
    time_ms   BIGINT NOT NULL
);
