-- How long until the batches of others are finished or expire, in seconds; null when there are none.
select extract(epoch from max(expires_at) - clock_timestamp())::float8 as seconds
from {schema}.lease where vectorizer = %(vectorizer)s
