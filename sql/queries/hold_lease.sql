-- The fence: from here to the end of the transaction nobody can take the batch away; without the row
-- somebody has.
select true from {schema}.lease where token = %(token)s for update
