-- Columns from other tables: a query keyed by the source's key, and the parents whose changes it shows.
-- definition -> joined: query, and parents: by table the columns of the query that hold its primary key.

-- What a query offers and reads, found by letting PostgreSQL itself read it: its columns, and those of the
-- source among what it reads, for rows whose values of them change.
create or replace function {schema}.check_joined(source regclass, key jsonb, joined jsonb,
  out columns text[], out source_columns text[])
language plpgsql as $$
declare
  missing text;
begin
  if joined is null then
    columns := '{{}}';
    source_columns := '{{}}';
    return;
  end if;
  begin
    execute format('create view {schema}.joined_check as select * from (%s) as q', joined ->> 'query');
  exception when others then
    perform {schema}.fail('VZ002', format('"joined" has a query that does not work: %s', sqlerrm),
      'give a query with the key columns of the table and the columns to join to its rows');
  end;
  columns := array(select attname::text from pg_attribute where attrelid = '{schema}.joined_check'::regclass and attnum > 0);
  source_columns := {schema}.columns_read('{schema}.joined_check'::regclass, source);
  drop view {schema}.joined_check;
  select k ->> 'column' into missing from jsonb_array_elements(key) as k where k ->> 'column' <> all (columns);
  if missing is not null then
    perform {schema}.fail('VZ002', format('the query of "joined" lacks the key column %I of table %s', missing, source),
      'let it return the columns of the key under their own names');
  end if;
  perform {schema}.check_parents(joined -> 'parents', columns);
end $$;

create or replace function {schema}.check_parents(parents jsonb, columns text[]) returns void
language plpgsql as $$
declare
  parent record;
  key jsonb;
begin
  for parent in select * from jsonb_each(parents) as e(name, holders) loop
    if to_regclass(parent.name) is null then
      perform {schema}.fail('VZ002', format('"joined" names the parent %s, and there is no such table', to_json(parent.name)),
        'give its name, with its schema if that is not in the search_path');
    end if;
    key := {schema}.source_key(to_regclass(parent.name), null);
    if key is null or jsonb_array_length(key) <> jsonb_array_length(parent.holders)
       or exists (select from jsonb_array_elements_text(parent.holders) as c where c <> all (columns)) then
      perform {schema}.fail('VZ002', format('"joined" does not say which rows a row of %s concerns', parent.name),
        format('list the columns of the query that hold its primary key (%s)',
          coalesce((select string_agg(k ->> 'column', ', ') from jsonb_array_elements(key) as k), 'it has none')));
    end if;
  end loop;
end $$;

-- The columns of a table that a view reads.
create or replace function {schema}.columns_read(reader regclass, relation regclass) returns text[]
language sql stable as $$
  select coalesce(array_agg(distinct a.attname::text), '{{}}')
  from pg_rewrite r
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid = relation and d.refobjsubid > 0
  join pg_attribute a on a.attrelid = relation and a.attnum = d.refobjsubid
  where r.ev_class = reader
$$;

-- The view over the query, and triggers on the parents that log their keys.
create or replace function {schema}.make_joined(v {schema}.vectorizer) returns void
language plpgsql as $$
#variable_conflict use_column
declare
  query text := v.definition -> 'joined' ->> 'query';
  view_path text;
  log_path text;
  parent record;
begin
  if v.joined_view is null then
    return;
  elsif query is null then
    execute format('drop table if exists %I.%I', {schema_name}, v.parents_table);
    update {schema}.vectorizer set joined_view = null, joined_query = null, joined_from = null, parents_table = null
    where id = v.id;
    return;
  end if;
  view_path := format('%I.%I', {schema_name}, v.joined_view);
  log_path := format('%I.%I', {schema_name}, v.parents_table);
  execute format('create or replace view %s as %s', view_path,
    case when v.joined_from = query then v.joined_query else query end);
  execute format('comment on view %s is %L', view_path, format('What vectorizer %I joins to rows of %s.', v.name, v.source));
  execute format(
    'create table if not exists %s (at timestamptz not null default now(), parent integer not null, key jsonb, cursor jsonb)',
    log_path);
  execute format('alter table %s replica identity full', log_path);
  execute format('comment on table %s is %L', log_path, format(
    'Parents that changed and whose rows in %s vectorizer %I has to look at. key null: all. cursor: how far it is.', v.source, v.name));
  for parent in
    select n, name::regclass as relation from jsonb_each(v.definition -> 'joined' -> 'parents') with ordinality as e(name, holders, n)
  loop
    perform {schema}.make_parent_capture(v, parent.n::integer, parent.relation, view_path::regclass, log_path);
  end loop;
end $$;

create or replace function {schema}.make_parent_capture(v {schema}.vectorizer, number integer, parent regclass, reader regclass,
  log_path text) returns void
language plpgsql as $$
declare
  base text := {schema}.object_name(v.label, '_parent' || number);
  key_path text := format('%I.%I', {schema_name}, {schema}.object_name(v.label, '_parent' || number || '_key'));
  function_path text := format('%I.%I', {schema_name}, base);
  trigger_name text;
  action text;
begin
  -- By number, not by name: a renamed column of its key breaks no writer.
  execute format(
    'create or replace function %s(r %s) returns jsonb language sql stable begin atomic select jsonb_build_array(%s); end',
    key_path, parent,
    (select string_agg(format('(r).%I', k ->> 'column'), ', ' order by n)
     from jsonb_array_elements({schema}.source_key(parent, null)) with ordinality as e(k, n)));
  execute format('revoke all on function %s(%s) from public', key_path, parent);
  execute format('create or replace function %s() returns pg_catalog.trigger language plpgsql security definer as %L', function_path,
    format('begin '
      'if tg_op operator(pg_catalog.=) ''TRUNCATE'' then insert into %1$s (parent) values (%2$s); '
      'elsif tg_op operator(pg_catalog.=) ''DELETE'' then insert into %1$s (parent, key) values (%2$s, %3$s(old)); '
      'else insert into %1$s (parent, key) values (%2$s, %3$s(new)); end if; '
      'if tg_op operator(pg_catalog.=) ''UPDATE'' and %3$s(old) operator(pg_catalog.<>) %3$s(new) then '
      'insert into %1$s (parent, key) values (%2$s, %3$s(old)); end if; '
      'return null; end', log_path, number, key_path));
  execute format('revoke all on function %s() from public', function_path);
  foreach action in array array['insert', 'update', 'delete', 'truncate'] loop
    trigger_name := {schema}.object_name('vectorizer_' || v.label, '_parent' || number || '_' || action);
    execute format('create or replace trigger %I after %s on %s for each %s execute function %s()', trigger_name, action, parent,
      case action
        when 'truncate' then 'statement'
        when 'update' then 'row when ' || {schema}.change_condition(parent, (
          select jsonb_object_agg(attname, attnum) from pg_attribute
          where attrelid = parent and attname = any ({schema}.columns_read(reader, parent))))
        else 'row' end, function_path);
    if coalesce((v.definition ->> 'always')::boolean, false) then
      execute format('alter table %s enable always trigger %I', parent, trigger_name);
    end if;
  end loop;
end $$;

-- Take the triggers off the parents, and the view; what it says now is kept for when it comes back.
create or replace function {schema}.drop_joined(v {schema}.vectorizer) returns void
language plpgsql as $$
declare
  view_path text;
  number integer := 1;
  part text;
begin
  if v.joined_view is null then
    return;
  end if;
  view_path := format('%I.%I', {schema_name}, v.joined_view);
  loop
    part := format('%I.%I', {schema_name}, {schema}.object_name(v.label, '_parent' || number));
    exit when to_regproc(part) is null;
    execute format('drop function %s() cascade', part);
    part := (select p.oid::regprocedure::text from pg_proc p
             where p.proname = {schema}.object_name(v.label, '_parent' || number || '_key') and p.pronamespace = {schema_name}::regnamespace);
    if part is not null then
      execute format('drop function %s', part);
    end if;
    number := number + 1;
  end loop;
  if to_regclass(view_path) is not null then
    update {schema}.vectorizer set joined_query = rtrim(pg_get_viewdef(view_path::regclass), ';'),
      joined_from = v.definition -> 'joined' ->> 'query'
    where id = v.id;
    execute format('drop view %s', view_path);
  end if;
end $$;

-- Queue rows of the source that a changed parent concerns, at most so many; returns how many. A parent of
-- many rows is gone through in ranges of keys.
create or replace function {schema}.fan_out(vectorizer integer, rows integer) returns bigint
language plpgsql as $$
declare
  v {schema}.vectorizer := (select r from {schema}.vectorizer r where r.id = fan_out.vectorizer);
  log_path text := format('%I.%I', {schema_name}, v.parents_table);
  names text := (select string_agg(quote_ident(k ->> 'name'), ', ' order by n)
                 from jsonb_array_elements(v.key) with ordinality as e(k, n));
  entry record;
  queued bigint;
  last jsonb;
begin
  execute format('select ctid as place, at, parent, key, cursor from %s limit 1 for update skip locked', log_path) into entry;
  if entry.place is null then
    return 0;
  end if;
  if entry.cursor is null then
    -- Other changes of the same parent are the same work.
    execute format(
      'delete from %1$s where ctid = any (array(select ctid from %1$s where parent = $1 and key is not distinct from $2 '
      'and cursor is null and ctid <> $3 for update skip locked))', log_path)
    using entry.parent, entry.key, entry.place;
  end if;
  execute format(
    'with last as (select * from jsonb_to_record($2) as c(%1$s)), next as ('
    '  select distinct %2$s from %3$I.%4$I j where %5$s and ($2 is null or (%6$s) > (%7$s)) order by %8$s limit $3), '
    'queued as (insert into %3$I.%9$I (at, %8$s) select $4, %8$s from next returning 1) '
    'select (select count(*) from queued), (select %10$s from next order by %11$s limit 1)',
    (select string_agg(format('%I %s', k ->> 'name', k ->> 'type'), ', ') from jsonb_array_elements(v.key) as k),
    (select string_agg(format('j.%I as %I', k ->> 'column', k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
    {schema_name}, v.joined_view,
    case when entry.key is null then 'true' else {schema}.parent_condition(v, entry.parent) end,
    (select string_agg(format('j.%I', k ->> 'column'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
    (select string_agg(format('(select %I from last)', k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
    names, v.log_table,
    (select format('jsonb_build_object(%s)', string_agg(format('%L, %I', k ->> 'name', k ->> 'name'), ', ')) from jsonb_array_elements(v.key) as k),
    (select string_agg(quote_ident(k ->> 'name') || ' desc', ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)))
  into queued, last using entry.key, entry.cursor, rows, entry.at;
  if queued < rows then
    execute format('delete from %s where ctid = $1', log_path) using entry.place;
  else
    execute format('update %s set cursor = $2 where ctid = $1', log_path) using entry.place, last;
  end if;
  return greatest(queued, 1);
end $$;

-- Which rows of the view j a parent of the key $1 concerns.
create or replace function {schema}.parent_condition(v {schema}.vectorizer, number integer) returns text
language sql stable as $$
  select string_agg(format('j.%I = ($1 ->> %s)::%s', h.name, h.n - 1, format_type(a.atttypid, a.atttypmod)), ' and ')
  from (
    select p.holders from jsonb_each(v.definition -> 'joined' -> 'parents') with ordinality as p(name, holders, n) where p.n = number) as e,
    jsonb_array_elements_text(e.holders) with ordinality as h(name, n),
    pg_attribute a
  where a.attrelid = format('%I.%I', {schema_name}, v.joined_view)::regclass and a.attname = h.name
$$;
