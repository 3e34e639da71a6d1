-- What every worker needs to know, in the database itself: a worker is started with nothing but a URL.

create table {schema}.vectorizer (
  id integer generated always as identity primary key,
  name text not null unique check (name <> ''),
  source regclass not null,
  -- The source's oid when its columns were numbered: a restored dump has another, and other numbers.
  numbered_for oid not null,
  -- One object a key column: column (its name in the source when it was attached), number (its attnum,
  -- which a rename does not change), name (its name in our tables), type (with COLLATE where the column
  -- has one), send (the type's binary output function), equals (its equality, schema-qualified).
  key jsonb not null check (jsonb_typeof(key) = 'array' and key <> '[]'),
  definition jsonb not null check (jsonb_typeof(definition) = 'object'),
  -- Columns whose change matters, by the name the definition uses, with their attnum: a rename in the
  -- source is followed. Null where every column matters, because a callback may read any.
  columns jsonb check (jsonb_typeof(columns) = 'object'),
  log_table text not null,
  row_table text not null,
  -- Readers use the view; storage is one table a generation. Null where a callback writes elsewhere.
  destination regclass,
  storage regclass,
  installed_at timestamptz not null default now(),
  -- Set while only the embeddings are kept; installing the same definition again takes them up.
  uninstalled_at timestamptz,
  -- Paused: nothing is embedded, changes go on being captured unless suspended_at is set, too.
  paused_at timestamptz,
  paused_reason text,
  suspended_at timestamptz
);
comment on table {schema}.vectorizer is 'One row per vectorizer: a source table kept in step with its embeddings.';

-- Apart from the registry, because claims update it all the time and the registry is read by everybody.
create table {schema}.progress (
  vectorizer integer primary key references {schema}.vectorizer on delete cascade,
  -- Backfill: every source row up to this key has been claimed once. Null before the first.
  backfill_cursor jsonb,
  backfill_claimed bigint not null default 0,
  backfill_total bigint not null default 0,
  backfill_started_at timestamptz not null default now(),
  backfill_done_at timestamptz,
  -- True while rows that are known already are claimed too: their hashes tell what changed meanwhile.
  backfill_resync boolean not null default false,
  -- Sweep: known keys up to this one were looked up in the source. Set off by TRUNCATE and by a resync.
  sweep_cursor jsonb,
  sweep_done_at timestamptz default now()
) with (fillfactor = 50);
comment on table {schema}.progress is 'How far backfill and sweep of each vectorizer have come.';

create table {schema}.lease (
  token uuid primary key,
  vectorizer integer not null,
  worker text not null,
  -- The keys of the batch, in the order of their numbers 1..n. They live here so that no index on the
  -- row tables is needed to find what a dead worker held, and so that those updates stay HOT.
  keys jsonb not null,
  claimed_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null
) with (fillfactor = 50);
create index on {schema}.lease (vectorizer);
comment on table {schema}.lease is 'One row per batch in flight. Whoever cannot lock it writes nothing.';
