-- Source rows and the hashes of the texts that are stored of them: what a plan counts. Nothing is locked.
with cursor as materialized (
  select * from jsonb_to_record(%(cursor)s::jsonb) as c({record})
)
select {s_key_object}::text, {visible}, {columns}, {stored}
from {source} s {sample} {join}
{after_s}
{order}
limit %(rows)s
