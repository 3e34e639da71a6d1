-- Vectors of texts that were embedded before, wherever. When they were last used is noted once a day.
with touched as (
  update {schema}.cache set used_on = current_date
  where ctid = any (array(
    select ctid from {schema}.cache
    where space = %(space)s and content_hash = any (%(hashes)b::bytea[]) and used_on < current_date
    for update skip locked))
)
select content_hash, embedding from {schema}.cache
where space = %(space)s and content_hash = any (%(hashes)b::bytea[])
