-- Following a source that was changed: renamed columns, another key type, a restored dump.

-- Put capture back on a table that was changed meanwhile, and have every row and every known key
-- visited: what happened in between is unknown, the hashes tell what is stale. Costs no embedding of
-- text that did not change.
create or replace function {schema}.reattach(vectorizer integer) returns void
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
create or replace function {schema}.renumbered(v {schema}.vectorizer) returns jsonb
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
create or replace function {schema}.rekeyed(v {schema}.vectorizer) returns jsonb
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
create or replace function {schema}.retype(v {schema}.vectorizer, old_key jsonb) returns void
language plpgsql as $$
declare
  change record;
  target text;
  grants text[] := {schema}.grants_on(v.destination, v.definition ->> 'destination');
begin
  for change in
    select k ->> 'name' as name, k ->> 'type' as type
    from jsonb_array_elements(v.key) with ordinality as e(k, n)
    where k ->> 'type' <> old_key -> (n - 1)::integer ->> 'type'
  loop
    if {schema}.is_there(v.destination) and v.serving then
      execute format('drop view if exists %s', v.destination);
    end if;
    foreach target in array array_remove(array[format('%I.%I', {schema_name}, v.log_table),
      format('%I.%I', {schema_name}, v.row_table), v.storage::text], null) loop
      execute format('alter table %1$s alter column %2$I type %3$s using %2$I::%3$s', target, change.name, change.type);
    end loop;
  end loop;
  if v.destination is not null and v.serving and to_regclass(v.definition ->> 'destination') is null then
    update {schema}.vectorizer r set destination = {schema}.create_view(v) where r.name = v.name;
    foreach target in array grants loop
      execute target;
    end loop;
  end if;
end $$;
