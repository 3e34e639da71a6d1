-- What a worker asks once a second, whatever the number of vectorizers: who is there, who is paused, who
-- has rows behind a cursor or of a worker that vanished, who waits to take over. Generations of one name
-- are one entry; its version changes with any change of them.
select pg_is_in_recovery(), (select max(number) from {schema}.migration), (
  select coalesce(jsonb_agg(to_jsonb(n) order by n.name), '[]')::text from (
    select v.name,
           string_agg(v.id || ':' || v.xmin::text, ' ' order by v.id) as version,
           jsonb_agg(v.log_table order by v.id)
             || coalesce(jsonb_agg(v.parents_table) filter (where v.parents_table is not null), '[]') as logs,
           jsonb_agg(v.row_table order by v.id) as ledgers,
           bool_or(v.definition ? 'chunk_column') as embeds,
           jsonb_agg(v.definition -> 'embedder') filter (where v.serving) -> 0 as embedder,
           min(coalesce(v.paused_reason, '')) filter (where v.serving and v.paused_at is not null) as paused,
           bool_or(p.backfill_done_at is null or p.sweep_done_at is null or v.takes_over) as behind,
           bool_or(v.id = any (e.expired)) as lost,
           bool_or(p.unserved_reason is not null) as unserved
    from {schema}.vectorizer v join {schema}.progress p on p.vectorizer = v.id,
         (select array(select vectorizer from {schema}.lease where expires_at < now()) as expired) e
    where v.uninstalled_at is null
    group by v.name) n)
