-- The log and the ledger of a vectorizer.

create or replace function {schema}.create_queue(v {schema}.vectorizer) returns void
language plpgsql as $$
declare
  log_path text := format('%I.%I', {schema_name}, v.log_table);
  row_path text := format('%I.%I', {schema_name}, v.row_table);
  names text := (select string_agg(quote_ident(k ->> 'name'), ', ' order by n)
                 from jsonb_array_elements(v.key) with ordinality as e(k, n));
  columns text := (select string_agg(format('%I %s', k ->> 'name', k ->> 'type'), ', ' order by n)
                   from jsonb_array_elements(v.key) with ordinality as e(k, n));
begin
  -- No index and no number: claims read the heap in its own order. A bulk INSERT pays 1.5 times the bare
  -- table for it, 2.1 times with a numbered primary key; a bulk DELETE 5.0 against 7.4.
  execute format(
    'create table if not exists %s ('
    '  at timestamptz not null default now(),'
    '  kind "char" not null default ''r'','
    '  %s'
    ') with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,'
    '  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000,'
    -- To give the end of the table back to the disk, VACUUM locks writers out. Upkeep does it where it pays.
    '  autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false)', log_path, columns);
  -- Without this a publication FOR ALL TABLES would refuse our deletes, for there is no primary key.
  execute format('alter table %s replica identity full', log_path);
  execute format('comment on table %s is %L', log_path, format(
    'Change log of vectorizer %I: keys of %s that changed. kind r: row, t: TRUNCATE.', v.name, v.source));
  -- Half of each page stays free: the update that finishes a row is then HOT, for it touches no index.
  execute format(
    'create table if not exists %s ('
    '  %s,'
    '  lease uuid,'
    '  attempts integer not null default 0,'
    '  losses integer not null default 0,'
    '  available_at timestamptz,'
    '  dead boolean not null default false,'
    '  error text,'
    '  failed_hash bytea,'
    '  time timestamptz,'
    '  source_hash bytea,'
    '  chunks integer,'
    '  primary key (%s)'
    ') with (fillfactor = 50)', row_path, columns, names);
  execute format('create index if not exists %I on %s (available_at) where available_at is not null and not dead',
    {schema}.object_name(v.row_table, '_available'), row_path);
  execute format('create index if not exists %I on %s (%s) where dead',
    {schema}.object_name(v.row_table, '_dead'), row_path, names);
  execute format('comment on table %s is %L', row_path, format(
    'Ledger of vectorizer %I: who holds each row of %s, what went wrong, what was made of it.', v.name, v.source));
end $$;

-- Shrink a log that nobody drained to one entry a key; returns how many entries went. Writers and
-- workers go on meanwhile; entries that a claim holds at this moment stay. The first of each key is kept,
-- so that a VACUUM can give the end of the table back to the disk.
create or replace function {schema}.collapse(name text) returns bigint
language sql as $$
  select sum({schema}.collapse_log(v)) from {schema}.generations(({schema}.named(collapse.name)).name) as v
$$;
comment on function {schema}.collapse(text) is 'Shrink the log of changes to one entry a key; returns how many entries went.';

create or replace function {schema}.collapse_log(v {schema}.vectorizer) returns bigint
language plpgsql as $$
declare
  removed bigint;
begin
  execute format(
    'delete from %1$s where ctid = any (array('
    '  select l.ctid from %1$s l join ('
    '    select ctid, row_number() over (partition by %2$s order by ctid) as n from %1$s where kind = ''r'') as e'
    '  on e.ctid = l.ctid where e.n > 1 for update of l skip locked))', format('%I.%I', {schema_name}, v.log_table),
    (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)));
  get diagnostics removed = row_count;
  return removed;
end $$;

-- Give dead letters another life: those with the given keys (objects of key column and value), or all.
-- Returns how many there were.
create or replace function {schema}.retry(name text, keys jsonb[] default null) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(retry.name);
  revived bigint;
  total bigint := 0;
begin
  for v in select * from {schema}.generations(retry.name) loop
    execute format(
      'update %I.%I set dead = false, attempts = 0, losses = 0, available_at = clock_timestamp() '
      'where dead and lease is null and ($1 is null or jsonb_build_object(%s) = any ($1))',
      {schema_name}, v.row_table,
      (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k))
    using keys;
    get diagnostics revived = row_count;
    total := total + revived;
  end loop;
  return total;
end $$;
comment on function {schema}.retry(text, jsonb[]) is 'Give dead letters another life; returns how many.';
