-- What a source table offers: its key, and the columns that a definition names.

-- The columns a template names, without the chunk itself.
create or replace function {schema}.template_columns(template text) returns text[]
language sql immutable strict as $$
  select coalesce(array_agg(distinct m[1]) filter (where m[1] <> 'chunk'), '{{}}')
  from regexp_matches(replace(replace(template, '{{{{', ''), '}}}}', ''), '\{{([^{{}}]*)\}}', 'g') as m
$$;

-- The name of a key column in our tables: `hash` would meet the source_hash of the ledger.
create or replace function {schema}.key_name(source_column text) returns text
language sql immutable strict as $$
  select {schema}.object_name('source_' || source_column || case source_column when 'hash' then '_of_row' else '' end, '')
$$;

-- The key: the primary key, or the unique NOT NULL index over the columns that the definition names.
-- A deferrable one will do: what is committed is unique.
create or replace function {schema}.source_key(source regclass, wanted text[]) returns jsonb
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

-- The columns the definition names, key first, each once. Null: all of them matter, to a callback.
create or replace function {schema}.tracked_columns(source regclass, key jsonb, definition jsonb) returns text[]
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
      union all select c, 8000 + n
        from unnest(({schema}.check_joined(source, key, definition -> 'joined')).source_columns) with ordinality as j(c, n)
    ) as named
    where name is not null
    group by name order by min(place));
end $$;

-- The columns a predicate reads, found by letting PostgreSQL itself read it.
create or replace function {schema}.predicate_columns(source regclass, predicate text) returns text[]
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

create or replace function {schema}.is_hypertable(source regclass) returns boolean
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

create or replace function {schema}.check_source(source regclass, definition jsonb) returns jsonb
language plpgsql as $$
declare
  relation pg_class := (select c from pg_class c where c.oid = source);
  wanted text[] := (select array_agg(c) from jsonb_array_elements_text(definition -> 'key') as c);
  key jsonb;
  joined text[];
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
  joined := ({schema}.check_joined(source, key, definition -> 'joined')).columns;
  perform {schema}.check_columns(source, {schema}.without({schema}.template_columns(definition ->> 'template'), joined), 'template')
    where definition ? 'template';
  perform {schema}.check_columns(source,
    {schema}.without(array(select jsonb_array_elements_text(definition -> 'metadata')), joined), 'metadata')
    where definition ? 'metadata';
  return key;
end $$;

create or replace function {schema}.without(names text[], others text[]) returns text[]
language sql immutable as $$
  select array(select unnest(names) except select unnest(others))
$$;

-- The tracked columns by name with their numbers.
create or replace function {schema}.column_numbers(source regclass, key jsonb, definition jsonb) returns jsonb
language sql as $$
  select jsonb_object_agg(a.attname, a.attnum) from pg_attribute a
  where a.attrelid = source and a.attname = any ({schema}.tracked_columns(source, key, definition))
$$;
