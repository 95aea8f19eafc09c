#!/bin/bash
# Run once, when the server's folder is made: a user for the program that owns its database and may do nothing else. The superuser is
# left without a password, so that it can be had inside this container only.
set -euo pipefail
export role=${ROLE:-spamer}
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv role role
\getenv password POSTGRES_PASSWORD
\getenv superuser POSTGRES_USER
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
ALTER ROLE :"superuser" PASSWORD NULL;
SQL
