-- Pausing, migrating, replaying: what an operator does, from psql as well as from the CLI.

create function {schema}.named(name text) returns {schema}.vectorizer
language plpgsql stable as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
begin
  select * into v from {schema}.vectorizer r where r.name = named.name and r.uninstalled_at is null;
  if v.id is null then
    perform {schema}.fail('VZ004', format('there is no vectorizer %I', named.name), {schema}.known_names());
  end if;
  return v;
end $$;

-- Stop embedding; changes go on being captured. With discard, capture stops and the log is emptied, so
-- that nothing grows however long the pause; resume then compares every row by its hash.
create function {schema}.pause(name text, reason text default 'paused by hand', discard boolean default false)
returns void
language plpgsql set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(pause.name);
begin
  update {schema}.vectorizer set paused_at = coalesce(paused_at, now()), paused_reason = pause.reason,
    suspended_at = case when pause.discard then coalesce(suspended_at, now()) else suspended_at end
  where id = v.id;
  if discard then
    perform {schema}.drop_capture(v);
    execute format('truncate %I.%I', {schema_name}, v.log_table);
  end if;
end $$;
comment on function {schema}.pause(text, text, boolean) is 'Stop embedding; changes go on being captured unless discard.';

-- The way through a migration that PostgreSQL would refuse because triggers use the column: capture off,
-- migration, resume.
create function {schema}.suspend(name text) returns void
language plpgsql set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(suspend.name);
begin
  update {schema}.vectorizer set paused_at = coalesce(paused_at, now()),
    paused_reason = 'suspended for a migration: run resume when it is done',
    suspended_at = coalesce(suspended_at, now())
  where id = v.id;
  perform {schema}.fence(v);
  perform {schema}.drop_capture(v);
end $$;
comment on function {schema}.suspend(text) is 'Take the triggers off for a migration of the source; resume puts them back.';

create function {schema}.resume(name text) returns void
language plpgsql set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(resume.name);
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  if v.suspended_at is not null then
    perform {schema}.reattach(v.id);
  end if;
  update {schema}.vectorizer set paused_at = null, paused_reason = null, suspended_at = null where id = v.id;
end $$;
comment on function {schema}.resume(text) is 'Go on after pause or suspend; after suspend every row is compared by its hash.';

-- Shrink a log that nobody drained to one entry a key; returns how many entries went. Writers and
-- workers go on meanwhile; entries that a claim holds at this moment stay.
create function {schema}.collapse(name text) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(collapse.name);
  log_path text := format('%I.%I', {schema_name}, v.log_table);
  removed bigint;
begin
  execute format(
    'delete from %1$s where ctid = any (array('
    '  select l.ctid from %1$s l join ('
    '    select ctid, row_number() over (partition by %2$s order by ctid desc) as n from %1$s where kind = ''r'') as e'
    '  on e.ctid = l.ctid where e.n > 1 for update of l skip locked))', log_path,
    (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)));
  get diagnostics removed = row_count;
  return removed;
end $$;
comment on function {schema}.collapse(text) is 'Shrink the log of changes to one entry a key; returns how many entries went.';

-- Give dead letters another life: those with the given keys (objects of key column and value), or all.
-- Returns how many there were.
create function {schema}.retry(name text, keys jsonb[] default null) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(retry.name);
  revived bigint;
begin
  execute format(
    'update %I.%I set dead = false, attempts = 0, losses = 0, available_at = clock_timestamp() '
    'where dead and lease is null and ($1 is null or jsonb_build_object(%s) = any ($1))',
    {schema_name}, v.row_table,
    (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k))
  using keys;
  get diagnostics revived = row_count;
  return revived;
end $$;
comment on function {schema}.retry(text, jsonb[]) is 'Give dead letters another life; returns how many.';

-- Wait until every change that is committed now can be searched. A procedure, because a function would
-- see nothing new under REPEATABLE READ: call it outside a transaction. Raises at once for a new dead
-- letter or a pause, with VZ006, and after the timeout with VZ007.
create procedure {schema}.wait_for_sync(name text, timeout interval default '60 seconds')
language plpgsql as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(wait_for_sync.name);
  deadline timestamptz := clock_timestamp() + timeout;
  log_path text := format('%I.%I', {schema_name}, v.log_table);
  row_path text := format('%I.%I', {schema_name}, v.row_table);
  key_object text := (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k);
  -- Whatever is committed by now began before now.
  target timestamptz := clock_timestamp();
  leases uuid[];
  retrying boolean := false;
  record text := (select string_agg(format('%I %s', k ->> 'name', k ->> 'type'), ', ') from jsonb_array_elements(v.key) as k);
  same_key text := (select string_agg(format('r.%1$I %2$s k.%1$I', k ->> 'name', k ->> 'equals'), ' and ')
                    from jsonb_array_elements(v.key) as k);
  dead_before jsonb;
  dead_now jsonb;
  waiting boolean;
begin
  execute format('select coalesce(jsonb_agg(jsonb_build_object(%s)), ''[]'') from %s where dead', key_object, row_path) into dead_before;
  loop
    v := {schema}.named(wait_for_sync.name);
    if v.paused_at is not null then
      perform {schema}.fail('VZ006', format('vectorizer %I is paused: %s', v.name, v.paused_reason), 'mend the cause, then resume it');
    end if;
    -- First the log up to now and the backfill, then the batches that took them and whatever of them waits
    -- to be retried.
    execute format('select exists (select from %s where at <= $1)', log_path) into waiting using target;
    if not waiting and exists (
        select from {schema}.progress p where p.vectorizer = v.id and p.backfill_done_at is not null and p.sweep_done_at is not null) then
      -- What waited to be retried a moment ago may be in a new batch now.
      if leases is null or retrying then
        leases := leases || array(select l.token from {schema}.lease l where l.vectorizer = v.id);
      end if;
      execute format('select exists (select from %1$s where available_at is not null and not dead and lease is null) '
        'or exists (select from {schema}.lease l, jsonb_to_recordset(l.keys) as k(%2$s), %1$s r '
        '  where l.vectorizer = $1 and r.lease = l.token and %3$s and (r.attempts > 0 or r.losses > 0))',
        row_path, record, same_key)
      into retrying using v.id;
      waiting := retrying or exists (select from {schema}.lease where token = any (leases));
    else
      waiting := true;
    end if;
    -- After that: a row that nobody waits for any more may just have been given up.
    execute format('select coalesce(jsonb_agg(jsonb_build_object(%s)), ''[]'') from %s where dead', key_object, row_path) into dead_now;
    if exists (select jsonb_array_elements(dead_now) except select jsonb_array_elements(dead_before)) then
      perform {schema}.fail('VZ006', format('vectorizer %I gave up rows: %s', v.name, (
          select string_agg(k::text, ', ') from (
            select jsonb_array_elements(dead_now) as k except select jsonb_array_elements(dead_before) limit 10) as new_dead)),
        'see the view dead_letters for why, then retry');
    end if;
    exit when not waiting;
    if clock_timestamp() > deadline then
      perform {schema}.fail('VZ007', format('vectorizer %I did not catch up within %s', v.name, timeout),
        'is a worker running? see the view status');
    end if;
    commit;
    perform pg_sleep(0.02);
  end loop;
end $$;
comment on procedure {schema}.wait_for_sync(text, interval) is 'Wait until every change committed so far can be searched.';
