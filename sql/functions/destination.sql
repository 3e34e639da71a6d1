-- Where embeddings go: storage, and the view that readers search.

-- The schema-qualified name of a destination: in the schema of its source unless named with one.
create or replace function {schema}.destination_path(source regclass, named text) returns text
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

-- The view that readers search, made or turned to this generation. Its cast lets a generation with other
-- dimensions or of half precision take it over.
create or replace function {schema}.create_view(v {schema}.vectorizer) returns regclass
language plpgsql as $$
declare
  path text := coalesce((select oid::regclass::text from pg_class where oid = v.destination), v.definition ->> 'destination');
begin
  execute format(
    'create or replace view %s as select id, time, %s, chunk, metadata, contents, embedding::%s.vector as embedding from %s', path,
    (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
    {schema}.vector_schema(), v.storage);
  execute format('comment on view %s is %L', path,
    format('Embeddings made by vectorizer %I with %s.', v.name, v.definition ->> 'model'));
  return path::regclass;
end $$;

-- Give the view another name; every generation of the vectorizer is told.
create or replace function {schema}.move_view(v {schema}.vectorizer, destination text) returns void
language plpgsql as $$
#variable_conflict use_column
declare
  path text[] := parse_ident(destination);
begin
  if to_regclass(destination) is not null then
    perform {schema}.fail('VZ003', format('destination %s exists already', destination), 'choose another destination');
  end if;
  execute format('alter view %s set schema %I', v.destination, path[1]);
  execute format('alter view %s rename to %I', v.destination, path[2]);
  update {schema}.vectorizer r set definition = jsonb_set(r.definition, '{{destination}}', to_jsonb(destination)) where r.name = v.name;
end $$;

-- Whether the vectors of a storage have a valid index by this method.
create or replace function {schema}.has_vector_index(storage regclass, method text) returns boolean
language sql stable as $$
  select exists (
    select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
    where i.indrelid = storage and i.indisvalid and m.amname = method)
$$;

create or replace function {schema}.vector_schema() returns text
language sql stable as $$
  select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace where extname = 'vector'
$$;

-- One table a generation.
create or replace function {schema}.create_storage(key jsonb, definition jsonb, generation integer) returns regclass
language plpgsql as $$
declare
  path text[] := parse_ident(definition ->> 'destination');
  storage text := format('%I.%I', path[1], {schema}.object_name(path[2], '_g' || generation));
  names text := (select string_agg(quote_ident(k ->> 'name'), ', ' order by n)
                 from jsonb_array_elements(key) with ordinality as e(k, n));
begin
  if to_regclass(storage) is not null or generation = 1 and to_regclass(definition ->> 'destination') is not null then
    perform {schema}.fail('VZ003', format('destination %I.%I or its storage %s exists already', path[1], path[2], storage),
      'choose another destination, or drop that one if nothing needs it');
  end if;
  execute format(
    'create table %s ('
    '  id uuid not null,'
    '  time timestamptz not null,'
    '  %s,'
    '  chunk integer not null,'
    '  content_hash bytea not null,'
    '  metadata jsonb not null,'
    '  contents text not null,'
    '  embedding %s.%s(%s) not null,'
    '  primary key (id, time)'
    ') %s', storage,
    (select string_agg(format('%I %s not null', k ->> 'name', k ->> 'type'), ', ' order by n)
     from jsonb_array_elements(key) with ordinality as e(k, n)),
    {schema}.vector_schema(), coalesce(definition ->> 'vectors', 'vector'), definition ->> 'dimensions',
    case when definition ? 'partition_interval' then 'partition by range (time)' else '' end);
  execute format('create index on %s (%s)', storage, names);
  execute format('create index on %s using gin (metadata jsonb_path_ops)', storage);
  return storage::regclass;
end $$;

-- A partition of a vectorizer's storage. Made apart and attached: PARTITION OF would lock all users of the
-- parent out.
create or replace function {schema}.add_partition(vectorizer integer, name text, starts timestamptz, ends timestamptz)
returns void language plpgsql as $$
#variable_conflict use_column
declare
  storage regclass := (select storage from {schema}.vectorizer v where v.id = add_partition.vectorizer);
begin
  if {schema}.is_owner(storage) then
    perform {schema}.make_partition(storage, name, starts, ends);
  else
    perform {schema}.add_partition_as_owner(add_partition.vectorizer, name, starts, ends);
  end if;
end $$;

create or replace function {schema}.make_partition(storage regclass, name text, starts timestamptz, ends timestamptz)
returns void language plpgsql as $$
declare
  path text := (select format('%s.%I', relnamespace::regnamespace, make_partition.name) from pg_class where oid = storage);
begin
  execute format('create table %s (like %s including all)', path, storage);
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', storage, path, starts, ends);
end $$;

create or replace function {schema}.ensure_vector() returns void
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
