-- Only one worker acts on a TRUNCATE.
delete from {log} where ctid = any (array(
  select ctid from {log} where ctid = any (%(truncates)s::tid[]) and kind = 't' for update skip locked))
returning ctid::text
