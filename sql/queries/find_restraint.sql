-- Why nothing, or nothing new, is to be sent to the model now: for how long its provider asked for a pause,
-- and whether the budget of the day is used up.
select extract(epoch from p.not_before - clock_timestamp())::float8 as held_seconds,
       to_char(p.not_before at time zone 'UTC', 'HH24:MI:SS') as until, p.reason,
       coalesce(u.exhausted and v.definition ? 'max_tokens_per_day', false) as spent
from {schema}.vectorizer v
left join {schema}.provider p on p.name = {schema}.provider_of(v.definition) and p.not_before > clock_timestamp()
left join {schema}.usage u on u.vectorizer = v.id and u.day = {schema}.today()
where v.id = %(vectorizer)s
