-- Patients are listed by pages, in the order in which they came.
CREATE INDEX patients_listed ON patients (created_us, id) WHERE erased_us IS NULL;
