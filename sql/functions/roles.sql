-- Roles that may do one thing: a worker its work, a reader searching. Who is what is told by the grants
-- themselves: a dump carries them, and REVOKE or DROP OWNED ends them. What needs the owner's rights is
-- in functions whose names end in _as_owner.

-- Which statements make a role a worker or a reader of all that is installed, and whether it holds that
-- already. On the registry a worker may only pause: the functions that act for the owner believe the rest.
create or replace function {schema}.role_grants(kind text, role name) returns table (statement text, held boolean)
language sql stable as $$
  with installed as (
    select v.*, format('%I.%I', {schema_name}, v.log_table) as log_path, format('%I.%I', {schema_name}, v.row_table) as row_path
    from {schema}.vectorizer v
  ), wanted(place, worker, reader, object_kind, object, privileges) as (
    select 1, true, true, 'schema', quote_ident({schema_name}), array['usage']
    union select 2, true, true, 'table', format('%I.%I', {schema_name}, t), array['select']
      from unnest(array['migration', 'vectorizer']) as t
    union select 3, true, false, 'table', format('%I.%I', {schema_name}, t), array['select']
      from unnest(array['status', 'dead_letters']) as t
    union select 4, true, false, 'column', format('%I.vectorizer', {schema_name}), array['paused_at', 'paused_reason']
    union select 5, true, false, 'table', format('%I.%I', {schema_name}, t), array['select', 'insert', 'update', 'delete']
      from unnest(array['lease', 'progress', 'upkeep', 'usage', 'provider', 'cache']) as t
    union select 6, true, false, 'function', p.oid::regprocedure::text, array['execute'] from pg_proc p
      where p.pronamespace = {schema_name}::regnamespace and p.prosecdef and p.proname like '%\_as\_owner'
    union select 7, true, false, 'table', c.oid::regclass::text, array['select', 'insert', 'update', 'delete']
      from installed join pg_class c on c.oid in (to_regclass(log_path), to_regclass(row_path),
        to_regclass(quote_ident({schema_name}) || '.' || quote_ident(parents_table)), storage)
    union select 7, true, false, 'table', c.oid::regclass::text, array['select']
      from installed join pg_class c on c.oid = to_regclass(quote_ident({schema_name}) || '.' || quote_ident(joined_view))
    union select 8, true, false, 'table', log_path, array['maintain']
      from installed where current_setting('server_version_num')::integer >= 170000 and to_regclass(log_path) is not null
    union select 9, true, false, 'table', source::text, array['select']
      from installed where uninstalled_at is null and exists (select from pg_class where oid = source)
    union select 10, true, true, 'schema', c.relnamespace::regnamespace::text, array['usage']
      from installed join pg_class c on c.oid in (storage, destination)
    union select 11, true, false, 'schema', c.relnamespace::regnamespace::text, array['usage']
      from installed join pg_class c on c.oid = source
    union select 12, true, true, 'schema', {schema}.vector_schema(), array['usage'] where {schema}.vector_schema() is not null
    union select 13, true, true, 'table', c.oid::regclass::text, array['select']
      from installed join pg_class c on c.oid in (storage, destination)
  )
  select case object_kind
      when 'column' then format('grant update (%s) on %s to %I', array_to_string(privileges, ', '), object, role)
      else format('grant %s on %s %s to %I', array_to_string(privileges, ', '), object_kind, object, role) end,
    (select bool_and(case object_kind
        when 'schema' then has_schema_privilege(role, object::regnamespace, p)
        when 'column' then has_column_privilege(role, object::regclass, p, 'update')
        when 'function' then has_function_privilege(role, object::regprocedure, p)
        else has_table_privilege(role, object::regclass, p) end) from unnest(privileges) as p)
  from wanted where case kind when 'worker' then worker when 'reader' then reader end
  group by object_kind, object, privileges order by min(place), object
$$;

-- Make a role a worker or a reader of every vectorizer, also of those that are installed later. Returns the
-- statements that somebody with more rights has to run: the owner of a source that is not ours.
create or replace function {schema}.grant_role(kind text, role name) returns setof text
language plpgsql as $$
declare
  statement text;
begin
  if kind not in ('worker', 'reader') then
    perform {schema}.fail('VZ002', format('there is no kind %L of roles', kind), 'it is worker or reader');
  elsif not exists (select from pg_roles r where r.rolname = role) then
    perform {schema}.fail('VZ002', format('role %I does not exist', role), format('create role %I login, then try again', role));
  end if;
  for statement in select g.statement from {schema}.role_grants(kind, role) g where not g.held loop
    begin
      execute statement;
    exception when insufficient_privilege then
      null;
    end;
  end loop;
  return query select g.statement from {schema}.role_grants(kind, role) g where not g.held;
end $$;
comment on function {schema}.grant_role(text, name) is
  'Make a role a worker or a reader of all vectorizers; returns the statements that their owners have to run.';

-- Who was made a worker or a reader by grant_role.
create or replace function {schema}.granted_roles() returns table (kind text, role name)
language sql stable as $$
  select case when bool_or(c.relname = 'lease') then 'worker' else 'reader' end, pg_get_userbyid(a.grantee)
  from pg_class c, aclexplode(c.relacl) a
  where c.relnamespace = {schema_name}::regnamespace and a.grantee not in (0, c.relowner)
    and (c.relname = 'lease' and a.privilege_type = 'INSERT' or c.relname = 'vectorizer' and a.privilege_type = 'SELECT')
  group by a.grantee
$$;

-- After installing and migrating: give those roles what has come since.
create or replace function {schema}.renew_grants() returns void
language plpgsql as $$
declare
  lacking record;
begin
  for lacking in select g.kind, g.role, s from {schema}.granted_roles() g, {schema}.grant_role(g.kind, g.role) s loop
    raise warning '% % lacks a right; let an owner run: %', lacking.kind, lacking.role, lacking.s;
  end loop;
end $$;

create or replace function {schema}.is_owner(relation regclass) returns boolean
language sql stable as $$
  select pg_has_role(relowner, 'usage') from pg_class where oid = relation
$$;

-- What follows acts for the owner: each does one thing to a vectorizer that is installed, and believes
-- nothing that a worker could have written.

create or replace function {schema}.add_partition_as_owner(vectorizer integer, name text, starts timestamptz, ends timestamptz)
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform {schema}.make_partition((select v.storage from {schema}.vectorizer v where v.id = vectorizer), name, starts, ends);
end $$;

create or replace function {schema}.follow_parts_as_owner(vectorizer integer) returns boolean
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select {schema}.follow_parts_now(vectorizer)
$$;

create or replace function {schema}.switch_as_owner(vectorizer integer) returns boolean
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select {schema}.switch_if_caught_up(vectorizer)
$$;

create or replace function {schema}.mend_view_as_owner(vectorizer integer) returns boolean
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select {schema}.mend_view_now(vectorizer)
$$;

create or replace function {schema}.drop_expired_as_owner(vectorizer integer) returns text
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select {schema}.drop_expired_now(vectorizer)
$$;

revoke all on function {schema}.drop_expired_as_owner(integer) from public;
revoke all on function {schema}.mend_view_as_owner(integer) from public;
revoke all on function {schema}.add_partition_as_owner(integer, text, timestamptz, timestamptz) from public;
revoke all on function {schema}.follow_parts_as_owner(integer) from public;
revoke all on function {schema}.switch_as_owner(integer) from public;
