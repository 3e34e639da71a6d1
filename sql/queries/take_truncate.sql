-- Only one worker acts on a TRUNCATE.
delete from {log} where seq = any(%(truncates)s) and seq in (
  select seq from {log} where seq = any(%(truncates)s) for update skip locked)
returning seq
