-- Attaching and detaching: from psql, Alembic, Django or Flyway as well as from Python.

-- Attach a vectorizer to a table: queue, capture, destination and registry row, and start its backfill.
-- Running it again with the same definition changes nothing. Returns the id of the vectorizer.
create or replace function {schema}.install(name text, source regclass, definition jsonb) returns integer
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
create or replace function {schema}.uninstall(name text, drop_embeddings boolean default false) returns void
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
