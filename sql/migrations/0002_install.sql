-- Installing and uninstalling, in SQL alone: from psql, Alembic, Django or Flyway as well as from Python.
-- Errors carry SQLSTATE VZ001 (source), VZ002 (definition), VZ003 (taken), VZ004 (unknown name),
-- VZ005 (extension) and a hint that says what to do next.

-- A name of at most 63 bytes: a longer one is cut and gets a hash of the whole, so that two never meet.
create function {schema}.object_name(base text, suffix text) returns text
language plpgsql immutable strict as $$
declare
  cut text := base;
  tail text := '_' || left(md5(base), 8) || suffix;
begin
  if octet_length(base || suffix) <= 63 then
    return base || suffix;
  end if;
  while octet_length(cut || tail) > 63 loop
    cut := left(cut, -1);
  end loop;
  return cut || tail;
end $$;

create function {schema}.fail(code text, message text, hint text) returns void
language plpgsql as $$
begin
  raise exception using errcode = code, message = message, hint = hint;
end $$;

-- The columns a template names, without the chunk itself.
create function {schema}.template_columns(template text) returns text[]
language sql immutable strict as $$
  select coalesce(array_agg(distinct m[1]) filter (where m[1] <> 'chunk'), '{{}}')
  from regexp_matches(replace(replace(template, '{{{{', ''), '}}}}', ''), '\{{([^{{}}]*)\}}', 'g') as m
$$;

create function {schema}.check_columns(source regclass, columns text[], what text) returns void
language plpgsql as $$
declare
  missing text;
begin
  select c into missing from unnest(columns) as c
  where not exists (
    select from pg_attribute a
    where a.attrelid = source and a.attname = c and a.attnum > 0 and not a.attisdropped);
  if missing is not null then
    perform {schema}.fail('VZ001',
      format('table %s has no column %I, which %s names', source, missing, what),
      'its columns are: ' || (
        select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
        where attrelid = source and attnum > 0 and not attisdropped));
  end if;
end $$;

-- The type under a domain, however deep.
create function {schema}.base_type(domain oid) returns oid
language sql stable strict as $$
  with recursive chain as (
    select oid, typbasetype, typtype from pg_type where oid = domain
    union all
    select t.oid, t.typbasetype, t.typtype from chain c join pg_type t on t.oid = c.typbasetype and c.typtype = 'd')
  select oid from chain where typtype <> 'd'
$$;

-- The name of a key column in our tables: `hash` would meet the source_hash of the ledger.
create function {schema}.key_name(source_column text) returns text
language sql immutable strict as $$
  select {schema}.object_name('source_' || source_column || case source_column when 'hash' then '_of_row' else '' end, '')
$$;

-- The key: the primary key, or the unique NOT NULL index over the columns that the definition names.
-- A deferrable one will do: what is committed is unique.
create function {schema}.source_key(source regclass, wanted text[]) returns jsonb
-- Without a search path types are printed with their schema, which holds for everybody.
language plpgsql stable set search_path = '' as $$
declare
  found jsonb;
begin
  select jsonb_agg(jsonb_build_object(
           'column', a.attname,
           'number', a.attnum,
           'name', {schema}.key_name(a.attname),
           -- Without a modifier, but -1 and not null: "character" would be character(1).
           'type', format_type(t.oid, -1) || case when a.attcollation <> t.typcollation
             then ' collate ' || (select format('%I.%I', n.nspname, c.collname) from pg_collation c
               join pg_namespace n on n.oid = c.collnamespace where c.oid = a.attcollation) else '' end,
           'equals', (
             select format('operator(%I.%s)', n.nspname, o.oprname)
             from pg_opclass c
             join pg_amop m on m.amopfamily = c.opcfamily and m.amopstrategy = 3 and m.amopmethod = c.opcmethod
               and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
             join pg_operator o on o.oid = m.amopopr join pg_namespace n on n.oid = o.oprnamespace
             where c.oid = i.indclass[k.position - 1]),
           'send', (select format('%I.%I', n.nspname, p.proname) from pg_proc p
             join pg_namespace n on n.oid = p.pronamespace where p.oid = t.typsend)
         ) order by k.position)
  into found
  from (
    select i.indexrelid, i.indrelid, i.indkey, i.indclass from pg_index i
    where i.indrelid = source and i.indisunique and i.indisvalid and i.indpred is null
      and i.indexprs is null and not i.indisexclusion
      and case when wanted is null then i.indisprimary
          else (select array_agg(attname::text order by attname) from pg_attribute
                where attrelid = source and attnum = any(i.indkey[0:i.indnkeyatts - 1]) having bool_and(attnotnull))
             = (select array_agg(c order by c::name) from unnest(wanted) as c) end
    order by i.indisprimary desc, i.indexrelid
    limit 1) as i
  join pg_index on pg_index.indexrelid = i.indexrelid
  cross join lateral unnest(i.indkey[0:pg_index.indnkeyatts - 1]::int2[]) with ordinality as k(attnum, position)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
  -- A domain travels as the type under it.
  join pg_type d on d.oid = a.atttypid
  join pg_type t on t.oid = case when d.typtype = 'd' then {schema}.base_type(d.oid) else d.oid end;
  return found;
end $$;

-- What each option may be; the columns are looked up later.
create function {schema}.check_options(definition jsonb) returns void
language plpgsql as $$
declare
  rule record;
begin
  for rule in
    select * from (values
      ('chunk_column', '$.type() == "string"', 'the name of a column'),
      ('time_column', '$.type() == "string"', 'the name of a column'),
      ('template', '$.type() == "string" && $ like_regex "[{{]chunk[}}]"', 'a text with {{chunk}} and other columns in braces'),
      ('metadata', '$.type() == "array" && !exists($[*] ? (@.type() != "string"))', 'a list of column names'),
      ('key', '$.type() == "array" && $.size() > 0 && !exists($[*] ? (@.type() != "string"))', 'a list of column names'),
      ('partition_interval', '$.type() == "string"', 'an interval such as "30 days"'),
      ('destination', '$.type() == "string"', 'the name of a view, with or without a schema'),
      ('embedder', '$.type() == "object"', 'an object such as {{"provider": "minilm"}}'),
      ('model', '$.type() == "string" && $ != ""', 'the name of a model'),
      ('dimensions', '$.type() == "number" && $ >= 1 && $ <= 16000 && $ == $.floor()', 'a whole number from 1 to 16000'),
      ('chunk_size', '$.type() == "array" && $.size() == 2 && !exists($[*] ? (@.type() != "number" || @ != @.floor())) && $[0] >= 1 && $[0] <= $[1]',
        'two whole numbers, the least and the most characters of a chunk'),
      ('chunk_overlap', '$.type() == "number" && $ >= 0 && $ == $.floor()', 'a whole number, 0 or more'),
      ('where', '$.type() == "string"', 'an SQL condition over columns of the table'),
      ('always', '$.type() == "boolean"', 'true or false')
    ) as r(option, test, wanted)
    where definition ? option
  loop
    if not coalesce(jsonb_path_match(definition -> rule.option, ('strict ' || rule.test)::jsonpath, silent => true), false) then
      perform {schema}.fail('VZ002', format('%s is %s', rule.option, definition -> rule.option), 'it has to be ' || rule.wanted);
    end if;
  end loop;
end $$;

-- A fixed length of time in whole seconds, so that "30 days" and "720 hours" are the same; months and
-- years have none.
create function {schema}.seconds_of(given text) returns bigint
language plpgsql stable as $$
declare
  seconds numeric;
begin
  begin
    if extract(month from given::interval) = 0 and extract(year from given::interval) = 0 then
      seconds := extract(epoch from given::interval);
    end if;
  exception when data_exception then
    seconds := null;
  end;
  if seconds is null or seconds < 3600 or seconds <> floor(seconds) then
    perform {schema}.fail('VZ002', format('partition_interval %s is not usable', to_json(given)),
      'give a fixed length of an hour or more, in hours, days or weeks, such as "30 days"');
  end if;
  return seconds;
end $$;

-- Defaults filled in and spellings made one, so that two definitions can be compared.
create function {schema}.normalize(definition jsonb) returns jsonb
language plpgsql stable as $$
declare
  result jsonb := jsonb_strip_nulls(definition);
  allowed constant text[] := array['chunk_column', 'template', 'metadata', 'time_column', 'key',
    'partition_interval', 'destination', 'embedder', 'model', 'dimensions', 'chunk_size', 'chunk_overlap',
    'where', 'always'];
  unknown text;
begin
  if jsonb_typeof(definition) <> 'object' then
    perform {schema}.fail('VZ002', 'the definition is no JSON object',
      'give options by name, such as: chunk_column, model, dimensions');
  end if;
  select k into unknown from jsonb_object_keys(result) as k where k <> all (allowed) limit 1;
  if unknown is not null then
    perform {schema}.fail('VZ002', format('the definition has an unknown option %s', to_json(unknown)),
      'the options are: ' || array_to_string(allowed, ', '));
  end if;
  perform {schema}.check_options(result);
  if result ? 'chunk_column' then
    result := jsonb_build_object('metadata', '[]'::jsonb, 'chunk_size', '[500, 1000]'::jsonb,
      'chunk_overlap', 0, 'embedder', '{{}}'::jsonb) || result;
    if not result ? 'model' or not result ? 'dimensions' then
      perform {schema}.fail('VZ002', 'the definition lacks "model" or "dimensions"',
        'name the model and the number of dimensions of its vectors');
    end if;
  end if;
  if result ? 'partition_interval' then
    result := jsonb_set(result, '{{partition_interval}}',
      to_jsonb({schema}.seconds_of(result ->> 'partition_interval') || ' seconds'));
  end if;
  return result;
end $$;

-- The columns the definition names, key first, each once. Null: all of them matter, to a callback.
create function {schema}.tracked_columns(source regclass, key jsonb, definition jsonb) returns text[]
language plpgsql as $$
begin
  if not definition ? 'chunk_column' then
    return null;
  end if;
  return array(
    select name from (
      select k ->> 'column' as name, n as place from jsonb_array_elements(key) with ordinality as e(k, n)
      union all select definition ->> 'chunk_column', 1001
      union all select definition ->> 'time_column', 1002
      union all select c, 2000 + n
        from unnest({schema}.template_columns(definition ->> 'template')) with ordinality as t(c, n)
      union all select c, 4000 + n
        from jsonb_array_elements_text(definition -> 'metadata') with ordinality as m(c, n)
      union all select c, 6000 + n
        from unnest({schema}.predicate_columns(source, definition ->> 'where')) with ordinality as w(c, n)
    ) as named
    where name is not null
    group by name order by min(place));
end $$;

-- The columns a predicate reads, found by letting PostgreSQL itself read it.
create function {schema}.predicate_columns(source regclass, predicate text) returns text[]
language plpgsql as $$
declare
  columns text[];
begin
  if predicate is null then
    return '{{}}';
  end if;
  begin
    execute format('create view {schema}.predicate_check as select 1 as one from %s s where (%s)', source, predicate);
  exception when others then
    perform {schema}.fail('VZ002', format('"where" does not work on table %s: %s', source, sqlerrm),
      'give an SQL condition over columns of the table, such as: deleted_at is null');
  end;
  select coalesce(array_agg(distinct a.attname::text), '{{}}') into columns
  from pg_rewrite r
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid = source and d.refobjsubid > 0
  join pg_attribute a on a.attrelid = source and a.attnum = d.refobjsubid
  where r.ev_class = '{schema}.predicate_check'::regclass;
  drop view {schema}.predicate_check;
  return columns;
end $$;

create function {schema}.is_hypertable(source regclass) returns boolean
language plpgsql stable as $$
declare
  found boolean;
begin
  if to_regclass('_timescaledb_catalog.hypertable') is null then
    return false;
  end if;
  execute 'select exists (select from _timescaledb_catalog.hypertable h join pg_class c on c.relname = h.table_name '
    'join pg_namespace n on n.oid = c.relnamespace and n.nspname = h.schema_name where c.oid = $1)'
  into found using source;
  return found;
end $$;

-- The tables that need triggers of their own. Row triggers of a partitioned table and of a hypertable
-- reach their parts by themselves; those of a parent in plain inheritance do not, nor does TRUNCATE.
create function {schema}.capture_targets(source regclass, truncates boolean) returns regclass[]
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
create function {schema}.lock_source(source regclass, mode text) returns void
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
create function {schema}.create_capture(v {schema}.vectorizer) returns void
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
begin
  perform {schema}.lock_source(v.source, 'share row exclusive');
  for part in
    select n, k ->> 'type' as type, a.attname from jsonb_array_elements(v.key) with ordinality as e(k, n)
    join pg_attribute a on a.attrelid = v.source and a.attnum = (k ->> 'number')::int2 order by n
  loop
    function_path := format('%I.%I', {schema_name}, {schema}.object_name(v.name, '_key' || part.n));
    execute format('create or replace function %s(r %s) returns %s language sql immutable begin atomic select (r).%I; end',
      function_path, v.source, regexp_replace(part.type, ' collate .*', ''), part.attname);
    execute format('revoke all on function %s(%s) from public', function_path, v.source);
    keys_of := keys_of || function_path;
  end loop;
  foreach action in array array['insert', 'update', 'delete', 'truncate'] loop
    function_path := format('%I.%I', {schema_name}, {schema}.object_name(v.name, '_' || action));
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
    foreach target in array {schema}.capture_targets(v.source, action = 'truncate') loop
      execute format('create trigger %I after %s on %s %s execute function %s()',
        {schema}.object_name('vectorizer_' || v.name, '_' || action), action, target,
        case
          when action = 'truncate' then 'for each statement'
          when action = 'update' then 'for each row when ' || {schema}.change_condition(v.source, v.columns)
          when per_row then 'for each row'
          else format('referencing %s table as changed for each statement', case action when 'insert' then 'new' else 'old' end)
        end, function_path);
      if always then
        execute format('alter table %s enable always trigger %I', target,
          {schema}.object_name('vectorizer_' || v.name, '_' || action));
      end if;
    end loop;
  end loop;
end $$;

create function {schema}.calls(functions text[], argument text) returns text
language sql immutable as $$
  select string_agg(format('%s(%s)', f, argument), ', ' order by n) from unnest(functions) with ordinality as u(f, n)
$$;

-- When an update counts as a change: when the binary image of a tracked column differs. (IS DISTINCT
-- FROM fails on json and misses 1.0 -> 1.00. As a function, not as the operator *<>: PostgreSQL writes
-- the condition back without the casts to record, and pg_restore and pg_upgrade then fail to read it.)
create function {schema}.change_condition(source regclass, columns jsonb) returns text
language sql stable as $$
  select case when columns is null then '(pg_catalog.record_image_ne(old.*, new.*))' else (
    select format('(pg_catalog.record_image_ne(row(%s), row(%s)))',
      string_agg('old.' || quote_ident(a.attname), ', ' order by a.attnum),
      string_agg('new.' || quote_ident(a.attname), ', ' order by a.attnum))
    from pg_attribute a
    where a.attrelid = source and a.attnum in (select number::int2 from jsonb_each_text(columns) as e(name, number))) end
$$;

-- Take the triggers off, with the functions they call; the table itself may be gone already.
create function {schema}.drop_capture(v {schema}.vectorizer) returns void
language plpgsql as $$
declare
  part text;
begin
  if exists (select from pg_trigger where tgrelid = v.source and not tgisinternal
             and tgname = {schema}.object_name('vectorizer_' || v.name, '_insert')) then
    perform {schema}.lock_source(v.source, 'access exclusive');
  end if;
  foreach part in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format('drop function if exists %I.%I() cascade', {schema_name}, {schema}.object_name(v.name, '_' || part));
  end loop;
  for part in
    select p.oid::regprocedure::text from jsonb_array_elements(v.key) with ordinality as e(k, n)
    join pg_proc p on p.proname = {schema}.object_name(v.name, '_key' || n) and p.pronamespace = {schema_name}::regnamespace
  loop
    execute format('drop function %s', part);
  end loop;
end $$;

create function {schema}.create_queue(v {schema}.vectorizer) returns void
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
    '  autovacuum_vacuum_cost_delay = 0)', log_path, columns);
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

-- The schema-qualified name of a destination: in the schema of its source unless named with one.
create function {schema}.destination_path(source regclass, named text) returns text
language plpgsql stable as $$
declare
  schema_of_source name;
  parts text[];
begin
  begin
    parts := parse_ident(named);
  exception when invalid_parameter_value then
    parts := '{{}}';
  end;
  if cardinality(parts) not in (1, 2) then
    perform {schema}.fail('VZ002', format('destination %s is no name of a view', to_json(named)),
      'give a name, or a schema and a name with a dot between; other characters need double quotes');
  end if;
  select n.nspname, parse_ident(coalesce(named, quote_ident({schema}.object_name(c.relname, '_embedding'))))
  into schema_of_source, parts
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = source;
  if cardinality(parts) = 1 then
    parts := array[schema_of_source::text] || parts;
  elsif to_regnamespace(quote_ident(parts[1])) is null then
    perform {schema}.fail('VZ002', format('destination %s is in schema %I, which does not exist', to_json(named), parts[1]),
      format('create schema %I, or choose another destination', parts[1]));
  end if;
  return format('%I.%I', parts[1], parts[2]);
end $$;

-- The view that readers search. Its cast lets a later generation with other dimensions take it over.
create function {schema}.create_view(name text, key jsonb, definition jsonb, storage regclass) returns regclass
language plpgsql as $$
declare
  path text := definition ->> 'destination';
begin
  execute format(
    'create view %s as select id, time, %s, chunk, metadata, contents, embedding::%I.vector as embedding from %s', path,
    (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(key) with ordinality as e(k, n)),
    (select nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where extname = 'vector'), storage);
  execute format('comment on view %s is %L', path,
    format('Embeddings made by vectorizer %I with %s.', name, definition ->> 'model'));
  return path::regclass;
end $$;

create function {schema}.create_destination(name text, key jsonb, definition jsonb) returns regclass[]
language plpgsql as $$
declare
  path text[] := parse_ident(definition ->> 'destination');
  storage text := {schema}.object_name(path[2], '_g1');
  extension text := (select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                     where extname = 'vector');
  names text := (select string_agg(quote_ident(k ->> 'name'), ', ' order by n)
                 from jsonb_array_elements(key) with ordinality as e(k, n));
begin
  if to_regclass(format('%I.%I', path[1], path[2])) is not null
     or to_regclass(format('%I.%I', path[1], storage)) is not null then
    perform {schema}.fail('VZ003', format('destination %I.%I or its storage %I exists already', path[1], path[2], storage),
      'choose another destination, or drop that one if nothing needs it');
  end if;
  execute format(
    'create table %I.%I ('
    '  id uuid not null,'
    '  time timestamptz not null,'
    '  %s,'
    '  chunk integer not null,'
    '  content_hash bytea not null,'
    '  metadata jsonb not null,'
    '  contents text not null,'
    '  embedding %s.vector(%s) not null,'
    '  primary key (id, time)'
    ') %s', path[1], storage,
    (select string_agg(format('%I %s not null', k ->> 'name', k ->> 'type'), ', ' order by n)
     from jsonb_array_elements(key) with ordinality as e(k, n)),
    extension, definition ->> 'dimensions',
    case when definition ? 'partition_interval' then 'partition by range (time)' else '' end);
  execute format('create index on %I.%I (%s)', path[1], storage, names);
  execute format('create index on %I.%I using gin (metadata jsonb_path_ops)', path[1], storage);
  return array[{schema}.create_view(name, key, definition, format('%I.%I', path[1], storage)::regclass),
    format('%I.%I', path[1], storage)::regclass];
end $$;

create function {schema}.check_source(source regclass, definition jsonb) returns jsonb
language plpgsql as $$
declare
  relation pg_class := (select c from pg_class c where c.oid = source);
  wanted text[] := (select array_agg(c) from jsonb_array_elements_text(definition -> 'key') as c);
  key jsonb;
begin
  if relation.relkind not in ('r', 'p') or relation.relpersistence = 't' then
    perform {schema}.fail('VZ001', format('%s is a %s, not a permanent table', source, case
        when relation.relpersistence = 't' then 'temporary table'
        else (array['view', 'materialized view', 'foreign table', 'index', 'sequence', 'composite type'])
          [array_position(array['v', 'm', 'f', 'i', 'S', 'c']::"char"[], relation.relkind)] end),
      'attach the vectorizer to the table that holds the rows');
  end if;
  perform {schema}.check_columns(source, wanted, 'key');
  key := {schema}.source_key(source, wanted);
  if key is null then
    perform {schema}.fail('VZ001', case when wanted is null then format('table %s has no primary key', source)
        else format('table %s has no unique index over exactly the NOT NULL columns %s', source,
          array_to_string(wanted, ', ')) end,
      'add a primary key, or name in "key" the NOT NULL columns of a unique index');
  end if;
  perform {schema}.check_columns(source, array[definition ->> 'chunk_column'], 'chunk_column')
    where definition ? 'chunk_column';
  perform {schema}.check_columns(source, array[definition ->> 'time_column'], 'time_column')
    where definition ? 'time_column';
  perform {schema}.check_columns(source, {schema}.template_columns(definition ->> 'template'), 'template')
    where definition ? 'template';
  perform {schema}.check_columns(source,
    array(select jsonb_array_elements_text(definition -> 'metadata')), 'metadata')
    where definition ? 'metadata';
  return key;
end $$;

-- The tracked columns by name with their numbers.
create function {schema}.column_numbers(source regclass, key jsonb, definition jsonb) returns jsonb
language sql as $$
  select jsonb_object_agg(a.attname, a.attnum) from pg_attribute a
  where a.attrelid = source and a.attname = any ({schema}.tracked_columns(source, key, definition))
$$;

create function {schema}.ensure_vector() returns void
language plpgsql as $$
begin
  if exists (select from pg_extension where extname = 'vector') then
    return;
  end if;
  begin
    create extension vector;
  exception when others then
    perform {schema}.fail('VZ005',
      format('the extension "vector" (pgvector) is missing in database %I: %s', current_database(), sqlerrm),
      'install pgvector on the server, then let an administrator run: CREATE EXTENSION vector');
  end;
end $$;

-- How many rows the planner believes a table and its parts to hold.
create function {schema}.planned_rows(source regclass) returns bigint
language sql stable as $$
  select greatest(sum(c.reltuples), 0)::bigint from pg_class c
  where c.oid = source or c.oid in (select relid from pg_partition_tree(source))
$$;

create function {schema}.has_source(v {schema}.vectorizer) returns boolean
language sql stable as $$
  select exists (select from pg_class where oid = v.source)
$$;

-- What the statements of a worker rely on: which column has which name.
create function {schema}.source_columns(source oid) returns text
language sql stable as $$
  select string_agg(attnum || ' ' || attname, ', ' order by attnum) from pg_attribute
  where attrelid = source and attnum > 0 and not attisdropped
$$;

-- True, or an error that makes a worker look its names up again. Without it columns that swap their names
-- would have it embed the wrong one.
create function {schema}.expect_columns(source oid, expected text) returns boolean
language plpgsql stable as $$
begin
  if {schema}.source_columns(source) is distinct from expected then
    raise exception using errcode = '42703', message = format('table %s was changed meanwhile', source::regclass);
  end if;
  return true;
end $$;

-- Put capture back on a table that was changed meanwhile, and have every row and every known key
-- visited: what happened in between is unknown, the hashes tell what is stale. Costs no embedding of
-- text that did not change.
create function {schema}.reattach(vectorizer integer) returns void
language plpgsql as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
  old_key jsonb;
begin
  select * into strict v from {schema}.vectorizer where id = reattach.vectorizer for update;
  if not {schema}.has_source(v) then
    perform {schema}.fail('VZ001', format('the source table of vectorizer %I was dropped', v.name),
      format('uninstall vectorizer %I; its embeddings stay, and installing it on another table takes them up', v.name));
  end if;
  perform {schema}.drop_capture(v);
  old_key := v.key;
  v.columns := {schema}.renumbered(v);
  v.key := {schema}.rekeyed(v);
  v.numbered_for := v.source;
  update {schema}.vectorizer set key = v.key, columns = v.columns, numbered_for = v.source where id = v.id;
  perform {schema}.create_queue(v);
  perform {schema}.retype(v, old_key);
  perform {schema}.fence(v);
  update {schema}.progress set backfill_cursor = null, backfill_claimed = 0, backfill_done_at = null,
    backfill_started_at = now(), backfill_resync = true, backfill_total = {schema}.planned_rows(v.source),
    sweep_cursor = null, sweep_done_at = null
  where vectorizer = v.id;
  perform {schema}.create_capture(v);
end $$;

-- The tracked columns with their numbers now: renamed ones keep theirs, one that was dropped and made
-- again has a new one.
create function {schema}.renumbered(v {schema}.vectorizer) returns jsonb
language plpgsql stable as $$
declare
  missing text;
  result jsonb;
begin
  select jsonb_object_agg(e.name, a.attnum), min(e.name) filter (where a.attnum is null) into result, missing
  from jsonb_each_text(v.columns) as e(name, number)
  left join lateral (
    select attnum from pg_attribute
    where attrelid = v.source and not attisdropped
      and (attnum = e.number::int2 and v.numbered_for = v.source or attname = e.name)
    order by attname <> e.name desc limit 1) a on true;
  if missing is not null then
    perform {schema}.fail('VZ001', format('column %I of table %s, which vectorizer %I uses, was dropped', missing, v.source, v.name),
      format('uninstall vectorizer %I and install it without that column', v.name));
  end if;
  return result;
end $$;

-- The key as it is now. A renamed key column keeps its name in our tables; other columns would be
-- another key, hence another vectorizer.
create function {schema}.rekeyed(v {schema}.vectorizer) returns jsonb
language plpgsql stable as $$
declare
  columns text[] := array(
    select a.attname from jsonb_array_elements(v.key) with ordinality as e(k, n)
    cross join lateral (
      select attname from pg_attribute
      where attrelid = v.source and not attisdropped
        and (attnum = (k ->> 'number')::int2 and v.numbered_for = v.source or attname = k ->> 'column')
      order by attname <> k ->> 'column' limit 1) a
    order by n);
  found jsonb := {schema}.source_key(v.source, columns);
begin
  if jsonb_array_length(coalesce(found, '[]')) <> jsonb_array_length(v.key) then
    perform {schema}.fail('VZ001', format('the key of table %s is no longer unique over the columns it was made of', v.source),
      format('give them a unique index again, or uninstall vectorizer %I and install it anew', v.name));
  end if;
  return (
    select jsonb_agg(k || jsonb_build_object('name', o -> 'name', 'column', o -> 'column') order by n)
    from jsonb_array_elements(v.key) with ordinality as e(o, n)
    join jsonb_array_elements(found) as f(k) on true
    where k ->> 'column' = columns[n]);
end $$;

-- A key column of another type than before: our tables follow.
create function {schema}.retype(v {schema}.vectorizer, old_key jsonb) returns void
language plpgsql as $$
declare
  change record;
  target text;
  grants text[] := array(
    select format('grant %s on %s to %s%s', a.privilege_type, v.definition ->> 'destination',
      case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
      case when a.is_grantable then ' with grant option' else '' end)
    from pg_class c, aclexplode(c.relacl) a where c.oid = v.destination and a.grantee <> c.relowner);
begin
  for change in
    select k ->> 'name' as name, k ->> 'type' as type
    from jsonb_array_elements(v.key) with ordinality as e(k, n)
    where k ->> 'type' <> old_key -> (n - 1)::integer ->> 'type'
  loop
    if v.destination is not null then
      execute format('drop view if exists %s', v.destination);
    end if;
    foreach target in array array_remove(array[format('%I.%I', {schema_name}, v.log_table),
      format('%I.%I', {schema_name}, v.row_table), v.storage::text], null) loop
      execute format('alter table %1$s alter column %2$I type %3$s using %2$I::%3$s', target, change.name, change.type);
    end loop;
  end loop;
  if v.destination is not null and to_regclass(v.definition ->> 'destination') is null then
    update {schema}.vectorizer set destination = {schema}.create_view(v.name, v.key, v.definition, v.storage) where id = v.id;
    foreach target in array grants loop
      execute target;
    end loop;
  end if;
end $$;

-- End every batch in flight: its worker writes nothing any more. Its rows are due at once.
create function {schema}.fence(v {schema}.vectorizer) returns void
language plpgsql as $$
begin
  perform from {schema}.lease l where l.vectorizer = v.id order by l.token for update;
  delete from {schema}.lease l where l.vectorizer = v.id;
  execute format('update %I.%I set lease = null, dead = false, available_at = clock_timestamp() where lease is not null',
    {schema_name}, v.row_table);
end $$;

-- Attach a vectorizer to a table: queue, capture, destination and registry row, and start its backfill.
-- Running it again with the same definition changes nothing. Returns the id of the vectorizer.
create function {schema}.install(name text, source regclass, definition jsonb) returns integer
language plpgsql
-- An install that waited longer behind a long transaction would queue the application behind itself.
set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  wanted jsonb;
  key jsonb;
  v {schema}.vectorizer;
  targets regclass[];
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  wanted := {schema}.normalize(install.definition);
  if wanted ? 'chunk_column' then
    wanted := wanted || jsonb_build_object('destination',
      {schema}.destination_path(install.source, wanted ->> 'destination'));
  end if;
  select * into v from {schema}.vectorizer r where r.name = install.name;
  if v.uninstalled_at is not null and not {schema}.has_source(v) then
    -- Another table has taken the place of the one these embeddings were made of.
    update {schema}.vectorizer set source = install.source where id = v.id returning * into v;
  end if;
  if v.id is not null and (v.source <> install.source or v.definition <> wanted) then
    perform {schema}.fail('VZ003',
      format('vectorizer %I is installed with another definition (on %s): %s', install.name, v.source,
        case when v.source <> install.source then 'the source differs'
        else (select string_agg(format('%s is %s, asked for %s', k, coalesce(v.definition -> k, 'null'), coalesce(wanted -> k, 'null')), '; ')
              from (select jsonb_object_keys(v.definition || wanted) as k) as o
              where v.definition -> k is distinct from wanted -> k) end),
      format('uninstall it first (uninstall(%L, true) drops its embeddings), or choose another name', install.name));
  end if;
  if v.id is not null and v.uninstalled_at is null then
    return v.id;
  end if;
  if wanted ? 'chunk_column' then
    perform {schema}.ensure_vector();
  end if;
  key := {schema}.check_source(install.source, wanted);
  if v.id is null then
    if wanted ? 'chunk_column' then
      targets := {schema}.create_destination(install.name, key, wanted);
    end if;
    insert into {schema}.vectorizer (name, source, numbered_for, key, definition, columns, log_table, row_table, destination, storage)
    values (install.name, install.source, install.source, key, wanted, {schema}.column_numbers(install.source, key, wanted),
            {schema}.object_name(install.name, '_log'), {schema}.object_name(install.name, '_row'), targets[1], targets[2])
    returning * into v;
    insert into {schema}.progress (vectorizer, backfill_total) values (v.id, {schema}.planned_rows(v.source));
    perform {schema}.create_queue(v);
    perform {schema}.create_capture(v);
  else
    update {schema}.vectorizer set uninstalled_at = null, installed_at = now() where id = v.id;
    perform {schema}.reattach(v.id);
  end if;
  return v.id;
end $$;
comment on function {schema}.install(text, regclass, jsonb) is
  'Attach a vectorizer to a table. Idempotent. Returns its id.';

-- Detach: capture and queue go at once; embeddings and ledger stay unless they are to be dropped.
create function {schema}.uninstall(name text, drop_embeddings boolean default false) returns void
language plpgsql set lock_timeout = '2s' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
  action text;
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  select * into v from {schema}.vectorizer r where r.name = uninstall.name;
  if v.id is null then
    perform {schema}.fail('VZ004', format('there is no vectorizer %I', uninstall.name), {schema}.known_names());
  end if;
  perform {schema}.fence(v) where v.uninstalled_at is null;
  perform {schema}.drop_capture(v);
  execute format('drop table if exists %I.%I', {schema_name}, v.log_table);
  if drop_embeddings or v.destination is null then
    if v.destination is not null then
      execute format('drop view if exists %s', v.destination);
      execute format('drop table if exists %s', v.storage);
    end if;
    execute format('drop table if exists %I.%I', {schema_name}, v.row_table);
    delete from {schema}.vectorizer where id = v.id;
  else
    update {schema}.vectorizer set paused_at = null, paused_reason = null, suspended_at = null,
      uninstalled_at = coalesce(uninstalled_at, now())
    where id = v.id;
  end if;
end $$;
comment on function {schema}.uninstall(text, boolean) is
  'Detach a vectorizer. Its embeddings are kept unless drop_embeddings is true.';

create function {schema}.known_names() returns text
language sql stable as $$
  select coalesce('installed: ' || string_agg(quote_ident(name), ', ' order by name),
                  'none is installed yet: use install')
  from {schema}.vectorizer where uninstalled_at is null
$$;
