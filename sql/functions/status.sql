-- What psql, Grafana and the CLI alike show of each vectorizer.

-- A JSON object a vectorizer, so that the view may get further columns at its end and keeps its grants.
create or replace function {schema}.statuses() returns setof jsonb
language plpgsql stable as $$
declare
  v {schema}.vectorizer;
  p {schema}.progress;
  source_dropped boolean;
  waiting bigint;
  oldest_change timestamptz;
  retrying bigint;
  dead_letters bigint;
  failure text;
  log_bytes bigint;
begin
  for v in select * from {schema}.vectorizer where uninstalled_at is null order by name, serving desc, generation loop
    select * into p from {schema}.progress where vectorizer = v.id;
    source_dropped := not {schema}.has_source(v);
    execute format(
      'select l.entries, l.oldest,'
      '  (select count(*) from %1$I.%3$I where available_at is not null and lease is null and not dead),'
      '  (select count(*) from %1$I.%3$I where dead),'
      -- Why some row waits: what is wrong need not wait until it has been given up.
      '  (select format(''%%s: %%s'', jsonb_build_object(%4$s), error) from %1$I.%3$I'
      '   where available_at is not null and lease is null and not dead and error is not null'
      '   order by available_at limit 1) '
      'from (select count(*) as entries, min(at) as oldest from (select at from %1$I.%2$I limit 1000000) as e) as l',
      {schema_name}, v.log_table, v.row_table,
      (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k))
    into waiting, oldest_change, retrying, dead_letters, failure;
    if v.parents_table is not null then
      execute format('select $1 + count(*), least($2, min(at)) from %I.%I', {schema_name}, v.parents_table)
      into waiting, oldest_change using waiting, oldest_change;
    end if;
    log_bytes := pg_total_relation_size(format('%I.%I', {schema_name}, v.log_table)::regclass);
    return next jsonb_build_object(
      'name', v.name,
      'source', v.source::text,
      'destination', case when v.destination is null or {schema}.is_there(v.destination) then v.destination::text
                          else v.definition ->> 'destination' end,
      'model', v.definition ->> 'model',
      'state', case when v.paused_at is not null or source_dropped then 'paused'
                    when v.takes_over then 'building'
                    when p.backfill_done_at is null or p.sweep_done_at is null then 'backfilling'
                    when v.serving then 'live' else 'standby' end,
      'reason', case when source_dropped then 'its source table was dropped: uninstall it' else v.paused_reason end,
      'waiting', waiting,
      'oldest_change', oldest_change,
      'in_flight', (select coalesce(sum(jsonb_array_length(keys)), 0) from {schema}.lease l where l.vectorizer = v.id),
      'retrying', retrying,
      'dead_letters', dead_letters,
      'backfill_claimed', p.backfill_claimed,
      'backfill_total', case when p.backfill_done_at is null then greatest(p.backfill_total, p.backfill_claimed)
                             else p.backfill_claimed end,
      'backfill_done', p.backfill_done_at is not null,
      'embeddings', case when {schema}.is_there(v.storage) then {schema}.approximate_rows(v.storage) end,
      'log_bytes', log_bytes,
      'generation', v.generation,
      'serving', v.serving,
      'backfill_eta', case when v.paused_at is null then {schema}.backfill_eta(p) end,
      'warnings', case when source_dropped then '[]' else
        to_jsonb({schema}.log_warnings(v, log_bytes, oldest_change) || {schema}.horizon_warnings()
          || {schema}.capture_warnings(v) || {schema}.unserved_warnings(p)
          || case when failure is not null then array['a row failed and waits for another attempt, ' || failure] else '{{}}' end || {schema}.index_warnings(v, p) || {schema}.destination_warnings(v) || {schema}.spending_warnings(v)) end,
      'tokens_today', (select tokens_sent from {schema}.usage u where u.vectorizer = v.id and u.day = {schema}.today()));
  end loop;
end $$;

-- When the backfill will have claimed every row if it goes on as it did since its first batch; null when
-- it is done or has not begun.
create or replace function {schema}.backfill_eta(p {schema}.progress) returns timestamptz
language sql stable as $$
  select clock_timestamp() + (clock_timestamp() - p.backfill_started_at)
    * greatest(p.backfill_total - p.backfill_claimed, 0) / p.backfill_claimed
  where p.backfill_done_at is null and p.backfill_claimed > 0
$$;

-- From when on something is worth a warning. Whoever finds these wrong sets his own, such as:
-- alter database shop set vectorizer.warn_log_size = '20GB'
create or replace function {schema}.warn_log_size() returns bigint
language sql stable as $$
  select pg_size_bytes(coalesce(nullif(current_setting('vectorizer.warn_log_size', true), ''), '1GB'))
$$;

create or replace function {schema}.warn_age() returns interval
language sql stable as $$
  select coalesce(nullif(current_setting('vectorizer.warn_age', true), ''), '1 hour')::interval
$$;

-- A log that nobody drains grows on the user's disk.
create or replace function {schema}.log_warnings(v {schema}.vectorizer, log_bytes bigint, oldest_change timestamptz)
returns text[]
language sql stable as $$
  select array_remove(array[
    case when log_bytes > {schema}.warn_log_size() then
      format('the change log takes %s: collapse it to one entry a row with "vectorizer collapse %s"%s',
        pg_size_pretty(log_bytes), v.name,
        case when v.paused_at is not null then format(', or stop it with "vectorizer pause %s --discard"', v.name) else '' end) end,
    case when clock_timestamp() - oldest_change > {schema}.warn_age() then
      format('a change has waited since %s: %s', to_char(oldest_change, 'YYYY-MM-DD HH24:MI TZ'),
        case when v.paused_at is not null then 'it is paused' else 'is a worker running?' end) end], null)
$$;

-- Who keeps VACUUM from removing dead rows, of which a queue makes many. Claims stay quick all the same,
-- but the tables grow. Snapshots count only in this database; a standby's feedback counts everywhere.
create or replace function {schema}.horizon_warnings() returns text[]
language sql stable as $$
  select coalesce(array_agg(w order by since), '{{}}') from (
    select xact_start as since, format(
      'a transaction open since %s keeps dead rows from being vacuumed: process %s of %s (%s)%s',
      to_char(xact_start, 'YYYY-MM-DD HH24:MI TZ'), pid, usename, state,
      coalesce(', application ' || nullif(application_name, ''), '')) as w
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
      and (backend_xmin is not null or backend_xid is not null)
      and clock_timestamp() - xact_start > {schema}.warn_age()
    union all
    select prepared, format(
      'a prepared transaction of %s keeps dead rows from being vacuumed: commit prepared %L, or roll it back',
      to_char(prepared, 'YYYY-MM-DD HH24:MI TZ'), gid)
    from pg_prepared_xacts
    where database = current_database() and clock_timestamp() - prepared > {schema}.warn_age()
    union all
    select null, format(
      'replication slot %I keeps dead rows of %s transactions from being vacuumed', slot_name, age(xmin))
    from pg_replication_slots
    where age(xmin) > 1000000) as found
$$;

-- Tables of the source whose writes nobody captures: a trigger is disabled there, or was never made
-- because the table became a child in an inheritance later.
create or replace function {schema}.uncaptured(v {schema}.vectorizer) returns regclass[]
language sql stable as $$
  select case when v.suspended_at is null then array(
    select t from unnest({schema}.capture_targets(v.source, false)) as t, unnest(array['_insert', '_update', '_delete']) as a
    where not exists (
      select from pg_trigger g where g.tgrelid = t and g.tgname = {schema}.object_name('vectorizer_' || v.label, a)
        and g.tgenabled <> 'D')
    union
    -- Triggers of a partition come from its parent, but may be disabled one by one.
    select g.tgrelid from pg_partition_tree(v.source) part join pg_trigger g on g.tgrelid = part.relid
    where g.tgenabled = 'D' and g.tgname in (
      select {schema}.object_name('vectorizer_' || v.label, a) from unnest(array['_insert', '_update', '_delete']) as a)
      -- Where statement triggers do their work, they are off.
      and not exists (
        select from pg_trigger s where s.tgrelid = g.tgrelid and s.tgenabled <> 'D'
          and s.tgname in ({schema}.object_name('vectorizer_' || v.label, '_insert_all'), {schema}.object_name('vectorizer_' || v.label, '_delete_all'))
          and s.tgtype & 28 = g.tgtype & 28)
    order by 1) else '{{}}' end
$$;

create or replace function {schema}.capture_warnings(v {schema}.vectorizer) returns text[]
language sql stable as $$
  select array(
    select format('changes of table %s are not captured: triggers of ours are missing or disabled there; enable them '
      '(alter table %s enable trigger all), then run "vectorizer verify %s --repair"', t, t, v.name)
    from unnest({schema}.uncaptured(v)) as t)
$$;

create or replace function {schema}.destination_warnings(v {schema}.vectorizer) returns text[]
language sql stable as $$
  select array_remove(array[
    case when v.storage is not null and not {schema}.is_there(v.storage) then
      format('its table of embeddings was dropped: run "vectorizer uninstall %s --drop-embeddings", and install it again', v.name) end,
    case when v.destination is not null and v.serving and not {schema}.is_there(v.destination) then
      format('the view %s was dropped: the next upkeep makes it again', v.definition ->> 'destination') end], null)
$$;

-- Some worker could not serve it, and none could since.
create or replace function {schema}.unserved_warnings(p {schema}.progress) returns text[]
language sql stable as $$
  select case when p.unserved_reason is not null then
    array[format('a worker could not serve it at %s: %s; it is left to workers that can',
      to_char(p.unserved_at, 'YYYY-MM-DD HH24:MI TZ'), p.unserved_reason)] else '{{}}' end
$$;

-- A worker that owns nothing cannot build an index.
create or replace function {schema}.index_warnings(v {schema}.vectorizer, p {schema}.progress) returns text[]
language sql stable as $$
  select case when v.definition ? 'index' and p.backfill_done_at is not null
      and not {schema}.has_vector_index(v.storage, v.definition ->> 'index')
      and exists (select from {schema}.granted_roles() where kind = 'worker')
    then array[format('the index over its vectors is not built, and a worker that does not own table %s may not build it: '
      'run "vectorizer run %s" as its owner', v.storage, v.name)] else '{{}}' end
$$;

create or replace view {schema}.status as
select x.* from {schema}.statuses() as s, jsonb_to_record(s) as x(
  name text, source text, destination text, model text, state text, reason text,
  waiting bigint, oldest_change timestamptz, in_flight bigint, retrying bigint, dead_letters bigint,
  backfill_claimed bigint, backfill_total bigint, backfill_done boolean, embeddings bigint, log_bytes bigint,
  backfill_eta timestamptz, warnings text[], generation integer, serving boolean,
  tokens_today bigint);
comment on view {schema}.status is 'One row per vectorizer: what waits, what is in flight, what is done, what is wrong.';
drop function if exists {schema}.list_status();

create or replace function {schema}.dead_rows() returns setof jsonb
language plpgsql stable as $$
declare
  v {schema}.vectorizer;
begin
  for v in select * from {schema}.vectorizer where uninstalled_at is null order by name, serving desc, generation loop
    return query execute format(
      'select jsonb_build_object(''name'', $1, ''generation'', $2, ''key'', jsonb_build_object(%s),'
      '  ''attempts'', attempts, ''losses'', losses, ''error'', error) from %I.%I where dead order by %s',
      (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k),
      {schema_name}, v.row_table,
      (select string_agg(quote_ident(k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k))
    using v.name, v.generation;
  end loop;
end $$;

create or replace view {schema}.dead_letters as
select x.* from {schema}.dead_rows() as d, jsonb_to_record(d) as x(
  name text, key jsonb, attempts integer, losses integer, error text, generation integer);
comment on view {schema}.dead_letters is 'Rows that were given up, with the error of their last attempt.';
drop function if exists {schema}.list_dead_letters();
