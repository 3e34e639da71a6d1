-- Triggers on the source that append changed keys to the log.

-- The tables that need triggers of their own. Row triggers of a partitioned table and of a hypertable
-- reach their parts by themselves; those of a parent in plain inheritance do not, nor does TRUNCATE.
create or replace function {schema}.capture_targets(source regclass, truncates boolean) returns regclass[]
language plpgsql stable as $$
begin
  if {schema}.is_hypertable(source) then
    return array[source];
  elsif (select relkind = 'p' from pg_class where oid = source) then
    return case when truncates then array(select relid::regclass from pg_partition_tree(source)) else array[source] end;
  end if;
  return array(
    with recursive family as (
      select source::oid as relid
      union select i.inhrelid from family f join pg_inherits i on i.inhparent = f.relid)
    select relid::regclass from family);
end $$;

-- Lock a source with all its parts before any trigger goes on or comes off. The first lock may be waited
-- for; from then on a writer may wait for us, so the others have to come before it looks for a deadlock
-- (deadlock_timeout, a second) and is undone. Who comes too late gives up and tries again.
create or replace function {schema}.lock_source(source regclass, mode text) returns void
language plpgsql set lock_timeout = '2s' as $$
declare
  targets regclass[] := {schema}.capture_targets(source, true);
  target regclass;
begin
  foreach target in array targets loop
    execute format('lock table only %s in %s mode', target, mode);
    perform set_config('lock_timeout', greatest(1, 600 / cardinality(targets)) || 'ms', true);
  end loop;
end $$;

-- Triggers only append the key to a log that no worker locks against them. SECURITY DEFINER: the
-- application's role needs no right on anything of ours. Everything is qualified: its search_path,
-- which may be empty, does not matter. The key is read through functions of BEGIN ATOMIC form, which
-- bind the column by number and are inlined: renaming a key column breaks no writer and costs nothing,
-- where an EXCEPTION block would cost a subtransaction per row.
create or replace function {schema}.create_capture(v {schema}.vectorizer) returns void
language plpgsql as $$
begin
  perform {schema}.lock_source(v.source, 'share row exclusive');
  perform {schema}.make_joined(v);
  perform {schema}.make_capture(v);
  perform {schema}.capture_by_statement(v, {schema}.capture_targets(v.source, true));
  update {schema}.progress set parts = {schema}.capture_targets(v.source, true) where vectorizer = v.id;
end $$;

-- The functions and triggers; those that are there already stay as they are.
create or replace function {schema}.make_capture(v {schema}.vectorizer) returns void
language plpgsql as $$
declare
  log_path text := format('%I.%I', {schema_name}, v.log_table);
  names text := (select string_agg(quote_ident(k ->> 'name'), ', ' order by n)
                 from jsonb_array_elements(v.key) with ordinality as e(k, n));
  always boolean := coalesce((v.definition ->> 'always')::boolean, false);
  -- Statement triggers with transition tables are cheaper, but they do not see writes to parts of a
  -- table, nor what logical replication applies.
  per_row boolean := always or {schema}.is_hypertable(v.source)
    or (select relkind = 'p' or relhassubclass from pg_class where oid = v.source);
  keys_of text[];
  part record;
  target regclass;
  action text;
  body text;
  function_path text;
  trigger_name text;
begin
  for part in
    select n, k ->> 'type' as type, a.attname from jsonb_array_elements(v.key) with ordinality as e(k, n)
    join pg_attribute a on a.attrelid = v.source and a.attnum = (k ->> 'number')::int2 order by n
  loop
    function_path := format('%I.%I', {schema_name}, {schema}.object_name(v.label, '_key' || part.n));
    execute format('create or replace function %s(r %s) returns %s language sql immutable begin atomic select (r).%I; end',
      function_path, v.source, regexp_replace(part.type, ' collate .*', ''), part.attname);
    execute format('revoke all on function %s(%s) from public', function_path, v.source);
    keys_of := keys_of || function_path;
  end loop;
  foreach action in array array['insert', 'update', 'delete', 'truncate'] loop
    function_path := format('%I.%I', {schema_name}, {schema}.object_name(v.label, '_' || action));
    body := case
      when action = 'truncate' then format($f$insert into %s (kind) values ('t'::pg_catalog."char");$f$, log_path)
      when action = 'update' then format(
        'insert into %1$s (%2$s) values (%4$s); '
        -- The binary image, because equality may not exist for the type or may be coarser than change.
        'if row(%3$s)::pg_catalog.record operator(pg_catalog.*<>) row(%4$s)::pg_catalog.record then '
        'insert into %1$s (%2$s) values (%3$s); end if;',
        log_path, names, {schema}.calls(keys_of, 'old'), {schema}.calls(keys_of, 'new'))
      when per_row then format('insert into %s (%s) values (%s);', log_path, names,
        {schema}.calls(keys_of, case action when 'insert' then 'new' else 'old' end))
      else format('insert into %s (%s) select %s from changed;', log_path, names, {schema}.calls(keys_of, 'changed.*'))
    end;
    execute format(
      'create or replace function %s() returns pg_catalog.trigger language plpgsql security definer '
      'as %L', function_path, format('begin %s return null; end', body));
    execute format('revoke all on function %s() from public', function_path);
    trigger_name := {schema}.object_name('vectorizer_' || v.label, '_' || action);
    foreach target in array {schema}.capture_targets(v.source, action = 'truncate') loop
      continue when exists (
        select from pg_trigger where tgrelid = target and tgname = trigger_name
        -- Bit 0 of tgtype: for each row.
        and (tgtype & 1 = 1) = (action = 'update' or action <> 'truncate' and per_row));
      execute format('create or replace trigger %I after %s on %s %s execute function %s()',
        trigger_name, action, target,
        case
          when action = 'truncate' then 'for each statement'
          when action = 'update' then 'for each row when ' || {schema}.change_condition(v.source, v.columns)
          when per_row then 'for each row'
          else format('referencing %s table as changed for each statement', case action when 'insert' then 'new' else 'old' end)
        end, function_path);
      if always then
        execute format('alter table %s enable always trigger %I', target, trigger_name);
      end if;
    end loop;
  end loop;
end $$;

create or replace function {schema}.calls(functions text[], argument text) returns text
language sql immutable as $$
  select string_agg(format('%s(%s)', f, argument), ', ' order by n) from unnest(functions) with ordinality as u(f, n)
$$;

-- When an update counts as a change: when the binary image of a tracked column differs. (IS DISTINCT
-- FROM fails on json and misses 1.0 -> 1.00. As a function, not as the operator *<>: PostgreSQL writes
-- the condition back without the casts to record, and pg_restore and pg_upgrade then fail to read it.)
create or replace function {schema}.change_condition(source regclass, columns jsonb) returns text
language sql stable as $$
  select case when columns is null then '(pg_catalog.record_image_ne(old.*, new.*))' else (
    select format('(pg_catalog.record_image_ne(row(%s), row(%s)))',
      string_agg('old.' || quote_ident(a.attname), ', ' order by a.attnum),
      string_agg('new.' || quote_ident(a.attname), ', ' order by a.attnum))
    from pg_attribute a
    where a.attrelid = source and a.attnum in (select number::int2 from jsonb_each_text(columns) as e(name, number))) end
$$;

-- Take the triggers off, with the functions they call; the table itself may be gone already.
create or replace function {schema}.drop_capture(v {schema}.vectorizer) returns void
language plpgsql as $$
declare
  part text;
begin
  if exists (select from pg_trigger where tgrelid = v.source and not tgisinternal
             and tgname = {schema}.object_name('vectorizer_' || v.label, '_insert')) then
    perform {schema}.lock_source(v.source, 'access exclusive');
  end if;
  foreach part in array array['insert', 'update', 'delete', 'truncate', 'insert_all', 'delete_all', 'moving'] loop
    execute format('drop function if exists %I.%I() cascade', {schema_name}, {schema}.object_name(v.label, '_' || part));
  end loop;
  for part in
    select p.oid::regprocedure::text from jsonb_array_elements(v.key) with ordinality as e(k, n)
    join pg_proc p on p.proname = {schema}.object_name(v.label, '_key' || n) and p.pronamespace = {schema_name}::regnamespace
  loop
    execute format('drop function %s', part);
  end loop;
  perform {schema}.drop_joined(v);
end $$;
