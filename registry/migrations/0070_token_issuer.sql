-- Who answers for a token: `user:<id>` of the person who made it, directly or through other tokens; null: the operator of the machine.
ALTER TABLE tokens ADD COLUMN issuer text;
