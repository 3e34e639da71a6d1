-- Wait until every change that is committed now can be searched. A procedure, because a function would
-- see nothing new under REPEATABLE READ: call it outside a transaction. Raises at once for a new dead
-- letter or a pause, with VZ006, and after the timeout with VZ007.
create or replace procedure {schema}.wait_for_sync(name text, timeout interval default '60 seconds')
language plpgsql as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(wait_for_sync.name);
  deadline timestamptz := clock_timestamp() + timeout;
  log_path text := format('%I.%I', {schema_name}, v.log_table);
  row_path text := format('%I.%I', {schema_name}, v.row_table);
  key_object text := (select string_agg(format('%L, %I', k ->> 'column', k ->> 'name'), ', ') from jsonb_array_elements(v.key) as k);
  -- Whatever is committed by now began before now.
  target timestamptz := clock_timestamp();
  leases uuid[];
  retrying boolean := false;
  record text := (select string_agg(format('%I %s', k ->> 'name', k ->> 'type'), ', ') from jsonb_array_elements(v.key) as k);
  same_key text := (select string_agg(format('r.%1$I %2$s k.%1$I', k ->> 'name', k ->> 'equals'), ' and ')
                    from jsonb_array_elements(v.key) as k);
  dead_before jsonb;
  dead_now jsonb;
  waiting boolean;
begin
  -- Unless the server's clock has stepped back since.
  execute format('select greatest($1, max(at)) from %s', log_path) into target using target;
  execute format('select coalesce(jsonb_agg(jsonb_build_object(%s)), ''[]'') from %s where dead', key_object, row_path) into dead_before;
  loop
    v := {schema}.named(wait_for_sync.name);
    if v.paused_at is not null then
      perform {schema}.fail('VZ006', format('vectorizer %I is paused: %s', v.name, v.paused_reason), 'mend the cause, then resume it');
    end if;
    -- First the log up to now and the backfill, then the batches that took them and whatever of them waits
    -- to be retried.
    execute format('select exists (select from %s where at <= $1)', log_path) into waiting using target;
    if not waiting and v.parents_table is not null then
      execute format('select exists (select from %I.%I where at <= $1)', {schema_name}, v.parents_table) into waiting using target;
    end if;
    if not waiting and exists (
        select from {schema}.progress p where p.vectorizer = v.id and p.backfill_done_at is not null and p.sweep_done_at is not null) then
      -- What waited to be retried a moment ago may be in a new batch now.
      if leases is null or retrying then
        leases := leases || array(select l.token from {schema}.lease l where l.vectorizer = v.id);
      end if;
      execute format('select exists (select from %1$s where available_at is not null and not dead and lease is null) '
        'or exists (select from {schema}.lease l, jsonb_to_recordset(l.keys) as k(%2$s), %1$s r '
        '  where l.vectorizer = $1 and r.lease = l.token and %3$s and (r.attempts > 0 or r.losses > 0))',
        row_path, record, same_key)
      into retrying using v.id;
      waiting := retrying or exists (select from {schema}.lease where token = any (leases));
    else
      waiting := true;
    end if;
    -- After that: a row that nobody waits for any more may just have been given up.
    execute format('select coalesce(jsonb_agg(jsonb_build_object(%s)), ''[]'') from %s where dead', key_object, row_path) into dead_now;
    if exists (select jsonb_array_elements(dead_now) except select jsonb_array_elements(dead_before)) then
      perform {schema}.fail('VZ006', format('vectorizer %I gave up rows: %s', v.name, (
          select string_agg(k::text, ', ') from (
            select jsonb_array_elements(dead_now) as k except select jsonb_array_elements(dead_before) limit 10) as new_dead)),
        'see the view dead_letters for why, then retry');
    end if;
    exit when not waiting;
    if clock_timestamp() > deadline then
      perform {schema}.fail('VZ007', format('vectorizer %I did not catch up within %s', v.name, timeout),
        'is a worker running? see the view status');
    end if;
    commit;
    perform pg_sleep(0.02);
  end loop;
end $$;
comment on procedure {schema}.wait_for_sync(text, interval) is 'Wait until every change committed so far can be searched.';
