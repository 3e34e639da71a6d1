-- Attaching and detaching: from psql, Alembic, Django or Flyway as well as from Python.

-- Attach a vectorizer to a table: queue, capture, destination and registry row, and start its backfill.
-- Running it again with the same definition changes nothing; another one is refused unless it is to be
-- changed. Returns the id of the vectorizer, of its new generation where the change needs one.
create or replace function {schema}.install(name text, source regclass, definition jsonb, change boolean default false)
returns integer
language plpgsql
-- An install that waited longer behind a long transaction would queue the application behind itself.
set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  wanted jsonb;
  key jsonb;
  v {schema}.vectorizer;
  storage regclass;
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  wanted := {schema}.normalize(install.definition);
  if wanted ? 'chunk_column' then
    wanted := wanted || jsonb_build_object('destination',
      {schema}.destination_path(install.source, wanted ->> 'destination'));
  end if;
  select * into v from {schema}.vectorizer r where r.name = install.name and r.serving;
  if v.uninstalled_at is not null and not {schema}.has_source(v) then
    -- Another table has taken the place of the one these embeddings were made of.
    update {schema}.vectorizer set source = install.source where id = v.id returning * into v;
  end if;
  if v.id is not null and v.source <> install.source then
    perform {schema}.fail('VZ003', format('vectorizer %I is installed on another table: %s', install.name, v.source),
      format('uninstall it first (uninstall(%L, true) drops its embeddings), or choose another name', install.name));
  elsif v.definition <> wanted and v.uninstalled_at is null and (change or exists (
      select from {schema}.vectorizer r where r.name = v.name and r.generation > v.generation and r.definition = wanted)) then
    return {schema}.change(v, wanted);
  elsif v.definition <> wanted then
    perform {schema}.fail('VZ003', format('vectorizer %I is installed with another definition: %s',
        install.name, {schema}.described_changes(v.definition, wanted)),
      case when v.uninstalled_at is null then 'to change it, install it with --change (in SQL: change => true); or choose another name'
      else format('drop its embeddings first: uninstall(%L, true); or choose another name', install.name) end);
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
      storage := {schema}.create_storage(key, wanted, 1);
    end if;
    insert into {schema}.vectorizer (name, label, source, numbered_for, key, definition, columns, log_table, row_table,
      joined_view, parents_table, storage)
    values (install.name, install.name, install.source, install.source, key, wanted, {schema}.column_numbers(install.source, key, wanted),
            {schema}.object_name(install.name, '_log'), {schema}.object_name(install.name, '_row'),
            case when wanted ? 'joined' then {schema}.object_name(install.name, '_joined') end,
            case when wanted ? 'joined' then {schema}.object_name(install.name, '_parents') end, storage)
    returning * into v;
    if storage is not null then
      update {schema}.vectorizer set destination = {schema}.create_view(v) where id = v.id;
    end if;
    insert into {schema}.progress (vectorizer, backfill_total) values (v.id, {schema}.planned_rows(v.source));
    perform {schema}.create_queue(v);
    perform {schema}.create_capture(v);
  else
    update {schema}.vectorizer set uninstalled_at = null, installed_at = now() where id = v.id;
    perform {schema}.reattach(v.id);
  end if;
  perform {schema}.renew_grants();
  return v.id;
end $$;
comment on function {schema}.install(text, regclass, jsonb, boolean) is
  'Attach a vectorizer to a table, or change how it is attached. Idempotent. Returns its id.';

-- Detach: capture and queue go at once; embeddings and ledger stay unless they are to be dropped.
create or replace function {schema}.uninstall(name text, drop_embeddings boolean default false) returns void
language plpgsql set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
  other {schema}.vectorizer;
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  select * into v from {schema}.vectorizer r where r.name = uninstall.name and r.serving;
  if v.id is null then
    perform {schema}.fail('VZ004', format('there is no vectorizer %I', uninstall.name), {schema}.known_names());
  end if;
  for other in select * from {schema}.vectorizer r where r.name = uninstall.name and not r.serving loop
    perform {schema}.drop_vectorizer(other);
  end loop;
  if drop_embeddings or v.destination is null then
    if {schema}.is_there(v.destination) then
      execute format('drop view if exists %s', v.destination);
    end if;
    perform {schema}.drop_vectorizer(v);
  else
    perform {schema}.fence(v) where v.uninstalled_at is null;
    perform {schema}.drop_capture(v);
    execute format('drop table if exists %I.%I', {schema_name}, v.log_table);
    if v.parents_table is not null then
      execute format('drop table if exists %I.%I', {schema_name}, v.parents_table);
    end if;
    update {schema}.vectorizer set paused_at = null, paused_reason = null, suspended_at = null,
      uninstalled_at = coalesce(uninstalled_at, now())
    where id = v.id;
  end if;
end $$;
comment on function {schema}.uninstall(text, boolean) is
  'Detach a vectorizer. Its embeddings are kept unless drop_embeddings is true.';
