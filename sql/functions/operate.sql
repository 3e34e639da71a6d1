-- Pausing and migrating: what an operator does, from psql as well as from the CLI.

-- Stop embedding; changes go on being captured. With discard, capture stops and the log is emptied, so
-- that nothing grows however long the pause; resume then compares every row by its hash.
create or replace function {schema}.pause(name text, reason text default 'paused by hand', discard boolean default false)
returns void
language plpgsql set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(pause.name);
begin
  for v in select * from {schema}.generations(pause.name) loop
    -- No more than these columns: a worker may pause, too.
    update {schema}.vectorizer set paused_at = coalesce(paused_at, now()), paused_reason = pause.reason where id = v.id;
    if discard then
      update {schema}.vectorizer set suspended_at = coalesce(suspended_at, now()) where id = v.id;
      perform {schema}.drop_capture(v);
      execute format('truncate %I.%I', {schema_name}, v.log_table);
    end if;
  end loop;
end $$;
comment on function {schema}.pause(text, text, boolean) is 'Stop embedding; changes go on being captured unless discard.';

-- The way through a migration that PostgreSQL would refuse because triggers use the column: capture off,
-- migration, resume.
create or replace function {schema}.suspend(name text) returns void
language plpgsql set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(suspend.name);
begin
  for v in select * from {schema}.generations(suspend.name) loop
    update {schema}.vectorizer set paused_at = coalesce(paused_at, now()),
      paused_reason = 'suspended for a migration: run resume when it is done',
      suspended_at = coalesce(suspended_at, now())
    where id = v.id;
    perform {schema}.fence(v);
    perform {schema}.drop_capture(v);
  end loop;
end $$;
comment on function {schema}.suspend(text) is 'Take the triggers off for a migration of the source; resume puts them back.';

create or replace function {schema}.resume(name text) returns void
language plpgsql set lock_timeout = '2s' set client_min_messages = warning as $$
#variable_conflict use_column
declare
  v {schema}.vectorizer := {schema}.named(resume.name);
begin
  perform pg_advisory_xact_lock(hashtextextended('vectorizer.install', 0));
  for v in select * from {schema}.generations(resume.name) loop
    if v.suspended_at is not null then
      perform {schema}.reattach(v.id);
    end if;
    update {schema}.vectorizer set paused_at = null, paused_reason = null, suspended_at = null where id = v.id;
  end loop;
end $$;
comment on function {schema}.resume(text) is 'Go on after pause or suspend; after suspend every row is compared by its hash.';
