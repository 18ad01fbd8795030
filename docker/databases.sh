#!/usr/bin/env bash
# Run by PostgreSQL's image at its first start: a user and a database for us, and others for MLflow.
set -euo pipefail

# create NAME PASSWORD: a user, and a database that only this user and the administrator may enter.
create() {
    psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname postgres \
        --set name="$1" --set password="$2" <<-'SQL'
		CREATE USER :"name" PASSWORD :'password';
		CREATE DATABASE :"name" OWNER :"name" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
		REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
	SQL
}

create cbam "$CBAM_DATABASE_PASSWORD"
create mlflow "$MLFLOW_DATABASE_PASSWORD"
