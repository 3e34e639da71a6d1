-- Chores that any worker does when they are due; see the table upkeep.

-- Whether a VACUUM of the log is worth its while: null if not, else whether it should give the end of the
-- table back to the disk. That locks writers out for some milliseconds, so only where there is much to
-- give. Who began before the last VACUUM and is there still keeps all that died since.
create or replace function {schema}.log_vacuum(vectorizer integer) returns boolean
language plpgsql stable as $$
declare
  log regclass := format('%I.%I', {schema_name},
    (select log_table from {schema}.vectorizer v where v.id = log_vacuum.vectorizer))::regclass;
  permitted boolean := (select pg_has_role(relowner, 'usage') from pg_class where oid = log);
  dead bigint;
  last timestamptz;
begin
  if not permitted and current_setting('server_version_num')::integer >= 170000 then
    permitted := has_table_privilege(log, 'maintain');
  end if;
  select n_dead_tup, greatest(last_vacuum, last_autovacuum) into dead, last from pg_stat_all_tables where relid = log;
  if not permitted or coalesce(dead, 0) < 1000 or {schema}.oldest_holder() <= last then
    return null;
  end if;
  return pg_relation_size(log) > 16 * 1024 * 1024;
end $$;

-- Since when somebody has kept rows that died from being vacuumed in this database; null if nobody does.
create or replace function {schema}.oldest_holder() returns timestamptz
language sql stable as $$
  select min(since) from (
    select xact_start as since from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and (backend_xmin is not null or backend_xid is not null)
    union all
    select prepared from pg_prepared_xacts where database = current_database()) as holders
$$;

-- Collapse a log that has become as large as a warning. Returns how many entries went, null if it is small.
create or replace function {schema}.collapse_if_large(vectorizer integer) returns bigint
language sql as $$
  select {schema}.collapse_log(v) from {schema}.vectorizer v
  where v.id = collapse_if_large.vectorizer and pg_relation_size(format('%I.%I', {schema_name}, v.log_table)::regclass) > {schema}.warn_log_size()
$$;

-- Take notice of tables that came under the source or left it. What came gets the triggers that it does
-- not inherit, and its rows are queued; a sweep finds the rows of what left. Returns whether there was
-- anything. It never waits for long, so that writers do not wait behind it.
create or replace function {schema}.follow_parts(vectorizer integer) returns boolean
language sql as $$
  select case when {schema}.is_owner(format('%I.%I', {schema_name}, v.log_table)::regclass)
    then {schema}.follow_parts_now(v.id) else {schema}.follow_parts_as_owner(v.id) end
  from {schema}.vectorizer v where v.id = follow_parts.vectorizer
$$;

create or replace function {schema}.follow_parts_now(vectorizer integer) returns boolean
language plpgsql set lock_timeout = '100ms' as $$
declare
  v {schema}.vectorizer := (select r from {schema}.vectorizer r where r.id = follow_parts_now.vectorizer);
  present regclass[];
  known regclass[] := (select p.parts from {schema}.progress p where p.vectorizer = v.id);
  came regclass[];
  part regclass;
begin
  if v.suspended_at is not null or not {schema}.has_source(v) or {schema}.is_hypertable(v.source)
     or not pg_try_advisory_xact_lock(hashtextextended('vectorizer.install', 0)) then
    return false;
  end if;
  present := {schema}.capture_targets(v.source, true);
  if known is null then
    update {schema}.progress p set parts = present where p.vectorizer = v.id;
    return false;
  elsif known @> present and present @> known then
    return false;
  end if;
  came := array(select unnest(present) except select unnest(known) order by 1);
  -- First the triggers, which lock a part for a moment, and in a later transaction its rows.
  if exists (select from unnest(came) as c(relid)
             where not {schema}.has_trigger(c.relid, {schema}.object_name('vectorizer_' || v.label, '_truncate'))) then
    foreach part in array came loop
      execute format('lock table only %s in share row exclusive mode', part);
    end loop;
    perform {schema}.make_capture(v);
    if {schema}.has_trigger(v.source, {schema}.object_name('vectorizer_' || v.label, '_insert_all')) then
      perform {schema}.capture_by_statement(v, came);
    end if;
    return true;
  end if;
  foreach part in array came loop
    perform {schema}.queue_part(v, part);
  end loop;
  update {schema}.progress p set parts = present,
    sweep_cursor = case when present @> known then p.sweep_cursor end,
    sweep_done_at = case when present @> known then p.sweep_done_at end
  where p.vectorizer = v.id;
  return true;
end $$;

-- Queue every row of a table that came under the source; a large one by way of the backfill, which
-- compares all rows by their hash.
create or replace function {schema}.queue_part(v {schema}.vectorizer, part regclass) returns void
language plpgsql as $$
begin
  if (select relkind <> 'r' from pg_class where oid = part) then
    return;
  elsif pg_relation_size(part) > 256 * 1024 * 1024 then
    update {schema}.progress set backfill_cursor = null, backfill_claimed = 0, backfill_done_at = null,
      backfill_started_at = now(), backfill_resync = true, backfill_total = {schema}.planned_rows(v.source)
    where vectorizer = v.id;
  else
    execute format('insert into %I.%I (%s) select %s from only %s c', {schema_name}, v.log_table,
      (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
      (select string_agg(format('%I.%I(c)', {schema_name}, {schema}.object_name(v.label, '_key' || n)), ', ' order by n)
       from jsonb_array_elements(v.key) with ordinality as e(k, n)), part);
  end if;
end $$;

-- Make the view that readers search again if it was dropped; one that took its name is left alone. Returns
-- whether it was made.
create or replace function {schema}.mend_view(vectorizer integer) returns boolean
language sql as $$
  select case when {schema}.is_owner(v.storage) then {schema}.mend_view_now(v.id) else {schema}.mend_view_as_owner(v.id) end
  from {schema}.vectorizer v where v.id = mend_view.vectorizer
$$;

create or replace function {schema}.mend_view_now(vectorizer integer) returns boolean
language plpgsql set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
  made regclass;
begin
  select * into v from {schema}.vectorizer where id = mend_view_now.vectorizer and serving and uninstalled_at is null;
  if v.destination is null or {schema}.is_there(v.destination) or not {schema}.is_there(v.storage)
     or to_regclass(v.definition ->> 'destination') is not null then
    return false;
  end if;
  made := {schema}.create_view(v);
  update {schema}.vectorizer set destination = made where name = v.name;
  perform {schema}.renew_grants();
  return true;
end $$;

-- Drop the oldest partition of which every row is older than the retention, and note that its rows have no
-- chunks any more. Returns what was dropped, null if there is none. Readers of the parent wait for the drop
-- itself, and it does not wait long for them.
create or replace function {schema}.drop_expired(vectorizer integer) returns text
language sql as $$
  select case when {schema}.is_owner(v.storage) then {schema}.drop_expired_now(v.id) else {schema}.drop_expired_as_owner(v.id) end
  from {schema}.vectorizer v where v.id = drop_expired.vectorizer
$$;

create or replace function {schema}.drop_expired_now(vectorizer integer) returns text
language plpgsql set lock_timeout = '500ms' set timezone = 'UTC' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
  part regclass;
  named text;
  ends timestamptz;
begin
  select * into v from {schema}.vectorizer where id = drop_expired_now.vectorizer;
  select p.part, p.ends into part, ends
  from (
    select c.oid::regclass as part,
      substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''([^'']+)''\)')::timestamptz as ends
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = v.storage) as p
  where p.ends <= clock_timestamp() - (v.definition ->> 'retention')::interval
  order by p.ends limit 1;
  if part is null then
    return null;
  end if;
  named := part::text;
  -- Rows in a batch are left to its worker, which finds them too old.
  execute format(
    'update %1$I.%2$I r set chunks = 0, time = null from (select distinct %3$s from %4$s order by %3$s) d '
    'where %5$s and r.lease is null and r.chunks > 0 and r.time < $1', {schema_name}, v.row_table,
    (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
    part, (select string_agg(format('r.%1$I %2$s d.%1$I', k ->> 'name', k ->> 'equals'), ' and ') from jsonb_array_elements(v.key) as k))
  using ends;
  execute format('drop table %s', named);
  return named;
end $$;
