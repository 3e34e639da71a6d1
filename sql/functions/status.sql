-- What psql, Grafana and the CLI alike show of each vectorizer.

create or replace function {schema}.list_status() returns table (
  name text, source text, destination text, model text, state text, reason text,
  waiting bigint, oldest_change timestamptz, in_flight bigint, retrying bigint, dead_letters bigint,
  backfill_claimed bigint, backfill_total bigint, backfill_done boolean,
  embeddings bigint, log_bytes bigint)
language plpgsql stable as $$
#variable_conflict use_column
declare
  v record;
  source_dropped boolean;
begin
  for v in
    select r.*, p.* from {schema}.vectorizer r join {schema}.progress p on p.vectorizer = r.id
    where r.uninstalled_at is null order by r.name
  loop
    name := v.name;
    source := v.source::text;
    destination := v.destination::text;
    model := v.definition ->> 'model';
    source_dropped := not exists (select from pg_class where oid = v.source);
    state := case when v.paused_at is not null or source_dropped then 'paused'
                  when v.backfill_done_at is null or v.sweep_done_at is null then 'backfilling' else 'live' end;
    reason := case when source_dropped then 'its source table was dropped: uninstall it' else v.paused_reason end;
    execute format(
      'select l.entries, l.oldest,'
      '  (select count(*) from %1$I.%3$I where available_at is not null and lease is null and not dead),'
      '  (select count(*) from %1$I.%3$I where dead)'
      'from (select count(*) as entries, min(at) as oldest from (select at from %1$I.%2$I limit 1000000) as e) as l',
      {schema_name}, v.log_table, v.row_table)
    into waiting, oldest_change, retrying, dead_letters;
    select coalesce(sum(jsonb_array_length(keys)), 0) into in_flight
    from {schema}.lease l where l.vectorizer = v.id;
    backfill_claimed := v.backfill_claimed;
    backfill_done := v.backfill_done_at is not null;
    backfill_total := case when backfill_done then v.backfill_claimed
                           else greatest(v.backfill_total, v.backfill_claimed) end;
    embeddings := case when v.storage is not null then {schema}.approximate_rows(v.storage) end;
    log_bytes := pg_total_relation_size(format('%I.%I', {schema_name}, v.log_table)::regclass);
    return next;
  end loop;
end $$;

create or replace view {schema}.status as select * from {schema}.list_status();
comment on view {schema}.status is 'One row per vectorizer: what waits, what is in flight, what is done.';

create or replace function {schema}.list_dead_letters() returns table (
  name text, key jsonb, attempts integer, losses integer, error text)
language plpgsql stable as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer;
begin
  for v in select * from {schema}.vectorizer where uninstalled_at is null order by name loop
    return query execute format(
      'select %L::text, jsonb_build_object(%s), attempts, losses, error from %I.%I where dead order by %s',
      v.name,
      (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k),
      {schema_name}, v.row_table,
      (select string_agg(quote_ident(k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k));
  end loop;
end $$;

create or replace view {schema}.dead_letters as select * from {schema}.list_dead_letters();
comment on view {schema}.dead_letters is 'Rows that were given up, with the error of their last attempt.';
