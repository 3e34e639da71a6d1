-- What the user's query says is embedded, where a callback writes and we cannot see it.
select {d_names}, 1::bigint as chunks, 1::bigint as positions, null::timestamptz as first_time,
       null::timestamptz as last_time, true as sound, true as of_model, true as timed
from {storage} d where {within_d}
group by {d_names}
