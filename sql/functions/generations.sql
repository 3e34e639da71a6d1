-- Changing a definition: in place, or as a generation beside the one that serves.

-- What differs between two definitions, and how it is changed: noted (workers follow by themselves),
-- compared (in place; every row is visited, text that did not change is not embedded again) or as a new
-- generation.
create or replace function {schema}.changes(before jsonb, after jsonb)
returns table (option text, old jsonb, new jsonb, how text)
language sql immutable as $$
  select k, before -> k, after -> k,
    case when k in ('embedder', 'destination', 'index', 'cache', 'max_tokens_per_day') then 'noted'
         when k in ('metadata', 'joined', 'time_column', 'retention', 'where', 'always', 'on_long_text') then 'compared'
         else 'generation' end
  from jsonb_object_keys(before || after) as k
  where before -> k is distinct from after -> k
  order by k
$$;

create or replace function {schema}.described_changes(before jsonb, after jsonb) returns text
language sql immutable as $$
  select string_agg(format('%s is %s, asked for %s', option, coalesce(old, 'null'), coalesce(new, 'null')), '; ')
  from {schema}.changes(before, after)
$$;

-- Apply a changed definition to the generation that serves; returns the id of the one that has it now.
create or replace function {schema}.change(v {schema}.vectorizer, wanted jsonb) returns integer
language plpgsql as $$
#variable_conflict use_column
declare
  building {schema}.vectorizer;
begin
  if (v.definition ? 'chunk_column') <> (wanted ? 'chunk_column') or v.definition -> 'key' is distinct from wanted -> 'key' then
    perform {schema}.fail('VZ003',
      format('vectorizer %I cannot be changed like this: %s', v.name, {schema}.described_changes(v.definition, wanted)),
      'another key, or a callback instead of the built-in pipeline, is another vectorizer: install it under another name');
  end if;
  select * into building from {schema}.vectorizer r
  where r.name = v.name and r.generation > v.generation and r.uninstalled_at is null order by generation desc limit 1;
  if building.definition = wanted then
    return building.id;
  elsif building.id is not null then
    perform {schema}.fail('VZ003',
      format('generation %s of vectorizer %I is there already, with another definition: %s',
        building.generation, v.name, {schema}.described_changes(building.definition, wanted)),
      format('let it take over (it does so by itself when it has caught up), or drop it: drop_generation(%L, %s)',
        v.name, building.generation));
  end if;
  if exists (select from {schema}.changes(v.definition, wanted) where how = 'generation') then
    return {schema}.create_generation(v, wanted);
  end if;
  perform {schema}.change_in_place(v, wanted);
  return v.id;
end $$;

create or replace function {schema}.change_in_place(v {schema}.vectorizer, wanted jsonb) returns void
language plpgsql as $$
#variable_conflict use_column
declare
  comparing boolean := exists (select from {schema}.changes(v.definition, wanted) where how = 'compared');
begin
  if v.definition -> 'destination' is distinct from wanted -> 'destination' then
    perform {schema}.move_view(v, wanted ->> 'destination');
  end if;
  update {schema}.vectorizer
  set definition = wanted, columns = {schema}.followed_columns(v, wanted), revision = revision + comparing::integer,
    joined_view = case when wanted ? 'joined' or v.joined_view is not null then {schema}.object_name(v.label, '_joined') end,
    parents_table = case when wanted ? 'joined' or v.joined_view is not null then {schema}.object_name(v.label, '_parents') end
  where id = v.id;
  if v.definition -> 'max_tokens_per_day' is distinct from wanted -> 'max_tokens_per_day' then
    perform {schema}.renew_budget(v);
  end if;
  if comparing then
    perform {schema}.reattach(v.id);
  end if;
end $$;

-- The columns a changed definition names, with their numbers. One that was renamed since is still meant
-- by the name it had.
create or replace function {schema}.followed_columns(v {schema}.vectorizer, wanted jsonb) returns jsonb
language plpgsql as $$
declare
  missing text;
  result jsonb;
begin
  select jsonb_object_agg(named.name, coalesce(kept.attnum, found.attnum)),
         min(named.name) filter (where kept.attnum is null and found.attnum is null)
  into result, missing
  from unnest({schema}.without({schema}.tracked_columns(v.source, v.key, wanted), {schema}.joined_only(v, wanted))) as named(name)
  left join pg_attribute kept on kept.attrelid = v.source and not kept.attisdropped and v.numbered_for = v.source
    and kept.attnum = coalesce(v.columns ->> named.name, (
      select k ->> 'number' from jsonb_array_elements(v.key) as k where k ->> 'column' = named.name))::int2
  left join pg_attribute found on found.attrelid = v.source and not found.attisdropped and found.attnum > 0
    and found.attname = named.name;
  if missing is not null then
    perform {schema}.check_columns(v.source, array[missing], 'the definition');
  end if;
  return result;
end $$;

-- The columns that only the query of "joined" has.
create or replace function {schema}.joined_only(v {schema}.vectorizer, wanted jsonb) returns text[]
language sql as $$
  select {schema}.without(({schema}.check_joined(v.source, v.key, wanted -> 'joined')).columns,
    array(select attname::text from pg_attribute where attrelid = v.source and attnum > 0)
    || array(select jsonb_object_keys(v.columns)))
$$;

-- A second vectorizer under the same name: own log, own ledger, own storage. Capture costs twice while
-- both are kept.
create or replace function {schema}.create_generation(v {schema}.vectorizer, wanted jsonb) returns integer
language plpgsql as $$
#variable_conflict use_column
declare
  number integer := (select max(r.generation) + 1 from {schema}.vectorizer r where r.name = v.name);
  new_label text := v.name || '@' || number;
  made {schema}.vectorizer;
begin
  insert into {schema}.vectorizer (name, generation, serving, takes_over, label, source, numbered_for, key, definition, columns,
    log_table, row_table, joined_view, parents_table, destination, storage)
  values (v.name, number, false, true, new_label, v.source, v.numbered_for, v.key, wanted, {schema}.followed_columns(v, wanted),
    {schema}.object_name(new_label, '_log'), {schema}.object_name(new_label, '_row'),
    case when wanted ? 'joined' then {schema}.object_name(new_label, '_joined') end,
    case when wanted ? 'joined' then {schema}.object_name(new_label, '_parents') end, v.destination,
    {schema}.create_storage(v.key, wanted, number))
  returning * into made;
  insert into {schema}.progress (vectorizer, backfill_total) values (made.id, {schema}.planned_rows(made.source));
  perform {schema}.create_queue(made);
  perform {schema}.copy_grants(v.storage, made.storage);
  perform {schema}.copy_grants(format('%I.%I', {schema_name}, v.log_table)::regclass,
    format('%I.%I', {schema_name}, made.log_table)::regclass);
  perform {schema}.copy_grants(format('%I.%I', {schema_name}, v.row_table)::regclass,
    format('%I.%I', {schema_name}, made.row_table)::regclass);
  perform {schema}.create_capture(made);
  perform {schema}.renew_grants();
  return made.id;
end $$;

-- Why a generation should not serve yet; null if nothing speaks against it. What was committed when its
-- backfill ended has to be done: of what comes after, the serving one has no more than it has.
create or replace function {schema}.not_caught_up(v {schema}.vectorizer) returns text
language plpgsql as $$
#variable_conflict use_column
declare
  progress {schema}.progress;
  found boolean;
  dead bigint;
begin
  select * into progress from {schema}.progress p where p.vectorizer = v.id;
  if v.paused_at is not null then
    return 'it is paused: ' || v.paused_reason;
  elsif progress.backfill_done_at is null or progress.sweep_done_at is null then
    return format('its backfill has claimed %s of about %s rows', progress.backfill_claimed,
      greatest(progress.backfill_total, progress.backfill_claimed));
  end if;
  if progress.catch_up_to is null or progress.catch_up_to < progress.backfill_done_at then
    -- The server's clock may have stepped back since an entry was made.
    execute format('select greatest(clock_timestamp(), (select max(at) from %I.%I), '
      '(select max(claimed_at) from {schema}.lease where vectorizer = $1))', {schema_name}, v.log_table)
      into progress.catch_up_to using v.id;
    update {schema}.progress p set catch_up_to = progress.catch_up_to where p.vectorizer = v.id;
  end if;
  if exists (select from {schema}.lease l where l.vectorizer = v.id and l.claimed_at <= progress.catch_up_to) then
    return 'a batch of its backfill is in flight';
  end if;
  execute format('select exists (select from %I.%I where at <= $1)', {schema_name}, v.log_table)
    into found using progress.catch_up_to;
  if found then
    return 'changes wait in its log';
  end if;
  execute format('select exists (select from %I.%I where available_at is not null and not dead and lease is null)',
    {schema_name}, v.row_table) into found;
  if found then
    return 'rows wait to be tried again';
  end if;
  if v.definition ? 'index' and not {schema}.has_vector_index(v.storage, v.definition ->> 'index') then
    return 'its index is not built';
  end if;
  execute format('select (select count(*) from %1$I.%2$I where dead) - (select count(*) from %1$I.%3$I where dead)',
    {schema_name}, v.row_table,
    (select row_table from {schema}.vectorizer r where r.name = v.name and r.serving and r.uninstalled_at is null))
  into dead;
  if dead > 0 then
    return format('it has %s dead letters more than the serving one: see the view dead_letters', dead);
  end if;
  return null;
end $$;

-- Let the view that readers search show another generation, all at once; returns its number. Without one
-- given it is the newest. One that has not caught up is refused, unless forced.
create or replace function {schema}.switch(name text, generation integer default null, force boolean default false)
returns integer
language plpgsql set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  serving {schema}.vectorizer := {schema}.named(switch.name);
  wanted {schema}.vectorizer;
  lacking text;
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  select * into wanted from {schema}.vectorizer r
  where r.name = switch.name and r.uninstalled_at is null and coalesce(r.generation = switch.generation, true)
  order by r.generation desc limit 1 for update;
  if wanted.id is null then
    perform {schema}.fail('VZ004', format('vectorizer %I has no generation %s', switch.name, switch.generation),
      {schema}.known_generations(switch.name));
  elsif wanted.serving then
    return wanted.generation;
  end if;
  lacking := {schema}.not_caught_up(wanted);
  if lacking is not null and not force then
    perform {schema}.fail('VZ008', format('generation %s of vectorizer %I has not caught up: %s', wanted.generation, switch.name, lacking),
      'mend that and try again, or force it');
  end if;
  perform {schema}.turn_view(wanted);
  return wanted.generation;
end $$;
comment on function {schema}.switch(text, integer, boolean) is
  'Let readers see another generation of a vectorizer, all at once.';

create or replace function {schema}.turn_view(wanted {schema}.vectorizer) returns void
language plpgsql as $$
begin
  perform {schema}.create_view(wanted);
  update {schema}.vectorizer r set serving = false where r.name = wanted.name and r.serving;
  update {schema}.vectorizer r set serving = true where r.id = wanted.id;
  -- From now on nobody but the user says which one serves.
  update {schema}.vectorizer r set takes_over = false where r.name = wanted.name and r.takes_over;
end $$;

-- Called by workers of a new generation: true if it serves now.
create or replace function {schema}.switch_when_caught_up(vectorizer integer) returns boolean
language sql as $$
  select case when {schema}.is_owner(v.destination)
    then {schema}.switch_if_caught_up(v.id) else {schema}.switch_as_owner(v.id) end
  from {schema}.vectorizer v where v.id = switch_when_caught_up.vectorizer
$$;

-- It never waits for long, so that readers do not queue behind it: it is tried again and again.
create or replace function {schema}.switch_if_caught_up(vectorizer integer) returns boolean
language plpgsql set lock_timeout = '100ms' as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('vectorizer.install', 0)) then
    return false;
  end if;
  select * into v from {schema}.vectorizer where id = switch_if_caught_up.vectorizer;
  if not v.takes_over or {schema}.not_caught_up(v) is not null then
    return false;
  end if;
  perform {schema}.turn_view(v);
  return true;
end $$;

create or replace function {schema}.known_generations(name text) returns text
language sql stable as $$
  select 'there are: ' || string_agg(format('%s%s', generation, case when serving then ' (serving)' else '' end), ', ' order by generation)
  from {schema}.vectorizer v where v.name = known_generations.name and v.uninstalled_at is null
$$;

-- Drop a generation that readers do not see, with its embeddings.
create or replace function {schema}.drop_generation(name text, generation integer) returns void
language plpgsql set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  perform {schema}.named(drop_generation.name);
  select * into v from {schema}.vectorizer r
  where r.name = drop_generation.name and r.generation = drop_generation.generation and r.uninstalled_at is null;
  if v.id is null then
    perform {schema}.fail('VZ004', format('vectorizer %I has no generation %s', drop_generation.name, drop_generation.generation),
      {schema}.known_generations(drop_generation.name));
  elsif v.serving then
    perform {schema}.fail('VZ003', format('generation %s of vectorizer %I serves', v.generation, v.name),
      'switch to another generation first, or uninstall the vectorizer');
  end if;
  perform {schema}.drop_vectorizer(v);
end $$;
comment on function {schema}.drop_generation(text, integer) is
  'Drop a generation that readers do not see, with its embeddings.';

-- All that a vectorizer owns but the view.
create or replace function {schema}.drop_vectorizer(v {schema}.vectorizer) returns void
language plpgsql as $$
begin
  perform {schema}.fence(v) where v.uninstalled_at is null;
  perform {schema}.drop_capture(v);
  execute format('drop table if exists %I.%I, %I.%I', {schema_name}, v.log_table, {schema_name}, v.row_table);
  if v.parents_table is not null then
    execute format('drop table if exists %I.%I', {schema_name}, v.parents_table);
  end if;
  if {schema}.is_there(v.storage) then
    execute format('drop table if exists %s', v.storage);
  end if;
  delete from {schema}.vectorizer where id = v.id;
end $$;
