-- How long, in seconds, a drain has to wait before all that it could not take is done or may be taken:
-- until the last lease expires; a moment, for what another claim has locked but not yet leased, which
-- comes back if that worker is gone; null if nothing is left.
select case
  when exists (select from {schema}.lease where vectorizer = %(vectorizer)s) then (
    select extract(epoch from max(expires_at) - clock_timestamp())::float8
    from {schema}.lease where vectorizer = %(vectorizer)s)
  when exists (
      select from {log} l where (select r.lease is not null from {row} r where {row_matches_l}) is not true)
    or exists (select from {row} where available_at <= clock_timestamp() and lease is null and not dead)
    {or_parents} then 0
end as seconds
