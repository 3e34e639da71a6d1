-- What the other functions share. Errors carry SQLSTATE VZ001 (source), VZ002 (definition), VZ003 (taken),
-- VZ004 (unknown name), VZ005 (extension), VZ006 (sync failed), VZ007 (sync timed out),
-- VZ008 (not caught up), and a hint that says
-- what to do next.

-- A name of at most 63 bytes: a longer one is cut and gets a hash of the whole, so that two never meet.
create or replace function {schema}.object_name(base text, suffix text) returns text
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

create or replace function {schema}.fail(code text, message text, hint text) returns void
language plpgsql as $$
begin
  raise exception using errcode = code, message = message, hint = hint;
end $$;

create or replace function {schema}.check_columns(source regclass, columns text[], what text) returns void
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
create or replace function {schema}.base_type(domain oid) returns oid
language sql stable strict as $$
  with recursive chain as (
    select oid, typbasetype, typtype from pg_type where oid = domain
    union all
    select t.oid, t.typbasetype, t.typtype from chain c join pg_type t on t.oid = c.typbasetype and c.typtype = 'd')
  select oid from chain where typtype <> 'd'
$$;

-- How many rows the planner believes a table and its parts to hold.
create or replace function {schema}.planned_rows(source regclass) returns bigint
language sql stable as $$
  select greatest(sum(c.reltuples), 0)::bigint from pg_class c
  where c.oid = source or c.oid in (select relid from pg_partition_tree(source))
$$;

-- Whether a relation that was noted once has not been dropped since.
create or replace function {schema}.is_there(relation regclass) returns boolean
language sql stable as $$
  select exists (select from pg_class where oid = relation)
$$;

create or replace function {schema}.has_source(v {schema}.vectorizer) returns boolean
language sql stable as $$
  select exists (select from pg_class where oid = v.source)
$$;

-- What the statements of a worker rely on: which column has which name.
create or replace function {schema}.source_columns(source oid) returns text
language sql stable as $$
  select string_agg(attnum || ' ' || attname, ', ' order by attnum) from pg_attribute
  where attrelid = source and attnum > 0 and not attisdropped
$$;

-- True, or an error that makes a worker look its names up again. Without it columns that swap their names
-- would have it embed the wrong one.
create or replace function {schema}.expect_columns(source oid, expected text) returns boolean
language plpgsql stable as $$
begin
  if {schema}.source_columns(source) is distinct from expected then
    raise exception using errcode = '42703', message = format('table %s was changed meanwhile', source::regclass);
  end if;
  return true;
end $$;

-- End every batch in flight: its worker writes nothing any more. Its rows are due at once.
create or replace function {schema}.fence(v {schema}.vectorizer) returns void
language plpgsql as $$
begin
  perform from {schema}.lease l where l.vectorizer = v.id order by l.token for update;
  delete from {schema}.lease l where l.vectorizer = v.id;
  execute format('update %I.%I set lease = null, dead = false, available_at = clock_timestamp() where lease is not null',
    {schema_name}, v.row_table);
end $$;

create or replace function {schema}.known_names() returns text
language sql stable as $$
  select coalesce('installed: ' || string_agg(quote_ident(name), ', ' order by name),
                  'none is installed yet: use install')
  from {schema}.vectorizer where serving and uninstalled_at is null
$$;

-- Exact while that is cheap, the planner's estimate beyond. Partitions are summed.
create or replace function {schema}.approximate_rows(relation regclass) returns bigint
language plpgsql stable as $$
declare
  estimate bigint;
  counted bigint;
begin
  select coalesce(sum(c.reltuples), 0) into estimate from pg_class c
  where c.relkind = 'r' and (c.oid = relation or c.oid in (select relid from pg_partition_tree(relation)));
  if estimate < 100000 then
    execute format('select count(*) from (select from %s limit 1000000) as some_rows', relation) into counted;
    return counted;
  end if;
  return estimate;
end $$;

-- The generation that readers see.
create or replace function {schema}.named(name text) returns {schema}.vectorizer
language plpgsql stable as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
begin
  select * into v from {schema}.vectorizer r where r.name = named.name and r.serving and r.uninstalled_at is null;
  if v.id is null then
    perform {schema}.fail('VZ004', format('there is no vectorizer %I', named.name), {schema}.known_names());
  end if;
  return v;
end $$;

-- Every generation of a vectorizer, the serving one first.
create or replace function {schema}.generations(name text) returns setof {schema}.vectorizer
language sql stable as $$
  select v.* from {schema}.vectorizer v
  where v.name = generations.name and v.uninstalled_at is null order by v.serving desc, v.generation
$$;

-- Who may use a relation may use another one as well.
create or replace function {schema}.copy_grants(from_relation regclass, to_relation regclass) returns void
language plpgsql as $$
declare
  statement text;
begin
  foreach statement in array {schema}.grants_on(from_relation, to_relation::text) loop
    execute statement;
  end loop;
end $$;

-- The statements that grant on a relation what is granted on another.
create or replace function {schema}.grants_on(relation regclass, target text) returns text[]
language sql stable as $$
  select array(
    select format('grant %s on %s to %s%s', a.privilege_type, target,
      case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
      case when a.is_grantable then ' with grant option' else '' end)
    from pg_class c, aclexplode(c.relacl) a where c.oid = relation and a.grantee <> c.relowner)
$$;
