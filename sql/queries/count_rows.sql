-- Exact while that is cheap; beyond, what the planner believes, or a count where it knows nothing. Our
-- schema need not be there.
select case when found.first < %(rows)s then found.first
            when found.planned >= found.first then found.planned
            else (select count(*) from {source}) end
from (
  select (select count(*) from (select from {source} limit %(rows)s) as e) as first,
         (select sum(c.reltuples)::bigint from pg_class c
          where c.oid = {source_oid}::oid
             or c.oid in (select relid from pg_partition_tree({source_oid}::oid::regclass))) as planned) as found
