-- Providers, budgets and the cache.

-- Vectorizers with the same provider share its limits.
create or replace function {schema}.provider_of(definition jsonb) returns text
language sql immutable as $$
  select concat_ws(' ', definition -> 'embedder' ->> 'provider', definition -> 'embedder' ->> 'base_url')
$$;

-- Budgets are of days in UTC, whatever the time zone of a session.
create or replace function {schema}.today() returns date
language sql stable as $$
  select (clock_timestamp() at time zone 'UTC')::date
$$;

-- Take tokens out of a vectorizer's budget of today; returns how many were left of the wanted ones. What is
-- given back is negative.
create or replace function {schema}.take_tokens(vectorizer integer, wanted bigint) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
  budget bigint := (select (definition ->> 'max_tokens_per_day')::bigint from {schema}.vectorizer where id = take_tokens.vectorizer);
  today date := {schema}.today();
  sent bigint;
  granted bigint;
begin
  insert into {schema}.usage (vectorizer, day) values (take_tokens.vectorizer, today) on conflict do nothing;
  select tokens_sent into sent from {schema}.usage u where u.vectorizer = take_tokens.vectorizer and u.day = today for update;
  granted := least(wanted, greatest(coalesce(budget, sent + wanted) - sent, 0));
  update {schema}.usage u set tokens_sent = tokens_sent + granted, exhausted = exhausted or granted < wanted
  where u.vectorizer = take_tokens.vectorizer and u.day = today;
  return granted;
end $$;

-- Another budget: what waited for tomorrow under the old one is tried under the new one.
create or replace function {schema}.renew_budget(v {schema}.vectorizer) returns void
language plpgsql as $$
begin
  update {schema}.usage set exhausted = false where vectorizer = v.id and day = {schema}.today();
  execute format(
    'update %1$I.%2$I set available_at = clock_timestamp() where ctid = any (array('
    '  select ctid from %1$I.%2$I where available_at > clock_timestamp() and lease is null and attempts = 0 and not dead'
    '  for update skip locked))', {schema_name}, v.row_table);
end $$;

-- How the cache is bounded; whoever needs other bounds sets his own, such as:
-- alter database shop set vectorizer.cache_max_rows = '1000000'
create or replace function {schema}.cache_max_rows() returns bigint
language sql stable as $$
  select coalesce(nullif(current_setting('vectorizer.cache_max_rows', true), ''), '100000')::bigint
$$;

create or replace function {schema}.cache_max_age() returns interval
language sql stable as $$
  select coalesce(nullif(current_setting('vectorizer.cache_max_age', true), ''), '90 days')::interval
$$;

-- Drop what is too old, and of the rest what was used longest ago; returns how many went.
create or replace function {schema}.trim_cache() returns bigint
language sql as $$
  with gone as (
    delete from {schema}.cache c where used_on < current_date - {schema}.cache_max_age()
      or ctid = any (array(
        select ctid from {schema}.cache order by used_on desc, content_hash offset {schema}.cache_max_rows()))
    returning 1)
  select count(*) from gone
$$;

create or replace function {schema}.spending_warnings(v {schema}.vectorizer) returns text[]
language sql stable as $$
  select array_remove(array[
    (select format('the budget of %s tokens a day is used up: what is left waits until midnight UTC; to go on at once, '
        'install it with a larger max_tokens_per_day', v.definition ->> 'max_tokens_per_day')
     from {schema}.usage u where u.vectorizer = v.id and u.day = {schema}.today() and u.exhausted
       and v.definition ? 'max_tokens_per_day'),
    (select format('provider %s asked for a pause until %s: %s', p.name, to_char(p.not_before, 'HH24:MI:SS TZ'), p.reason)
     from {schema}.provider p
     where p.name = {schema}.provider_of(v.definition) and p.not_before > clock_timestamp())], null)
$$;
