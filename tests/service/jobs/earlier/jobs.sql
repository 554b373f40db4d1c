BEGIN TRANSACTION;
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sweep INTEGER REFERENCES sweep,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    cancelling INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    epochs INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    submitted REAL NOT NULL,
    started REAL,
    ended REAL
);
INSERT INTO "job" VALUES(7,NULL,'{"model":"mlp","preset":"small","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":3,"batch_size":128,"learning_rate":0.004,"weight_decay":0.05,"dropout_rate":0.2,"norm":true,"max_norm":null,"patience":2,"recalibrate":null,"fold":true,"monte_carlo":null,"monitor":false,"distribute":"none","replicas":null,"synchronized":false,"seed":0,"name":"fashion","run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','succeeded',0,0,1,0,'',1790000010.5,1790000105.0,1790000115.5);
INSERT INTO "job" VALUES(8,NULL,'{"model":"cnn","preset":"small","dataset":"folder:/srv/pictures/pets","image_size":64,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.004,"weight_decay":0.05,"dropout_rate":0.5,"norm":true,"max_norm":3.5,"patience":null,"recalibrate":null,"fold":true,"monte_carlo":null,"monitor":false,"distribute":"none","replicas":null,"synchronized":false,"seed":0,"name":null,"run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','failed',7,0,2,1,'The trainer died 2 times without finishing an epoch. Its last lines:
Epoch 2/4 — 50 %',1790000021.0,1790000126.0,1790000136.5);
INSERT INTO "job" VALUES(9,1,'{"model":"mlp","preset":"small","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.001,"weight_decay":0.05,"dropout_rate":0.5,"norm":true,"max_norm":null,"patience":null,"recalibrate":null,"fold":true,"monte_carlo":null,"monitor":false,"distribute":"none","replicas":null,"synchronized":false,"seed":5,"name":"mlp-fashion_mnist-learning_rate-0.001","run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','queued',-2,0,0,0,'',1790000031.5,NULL,NULL);
INSERT INTO "job" VALUES(10,1,'{"model":"mlp","preset":"small","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.004,"weight_decay":0.05,"dropout_rate":0.5,"norm":true,"max_norm":null,"patience":null,"recalibrate":null,"fold":true,"monte_carlo":null,"monitor":false,"distribute":"none","replicas":null,"synchronized":false,"seed":5,"name":"mlp-fashion_mnist-learning_rate-0.004","run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','queued',-2,0,0,0,'',1790000042.0,NULL,NULL);
INSERT INTO "job" VALUES(11,NULL,'{"model":"cnn","preset":"small","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.004,"weight_decay":0.05,"dropout_rate":0.0,"norm":false,"max_norm":null,"patience":null,"recalibrate":null,"fold":true,"monte_carlo":null,"monitor":false,"distribute":"none","replicas":null,"synchronized":false,"seed":0,"name":null,"run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','cancelled',0,0,0,0,'',1790000052.5,NULL,1790000147.0);
INSERT INTO "job" VALUES(12,NULL,'{"model":"cnn","preset":"small","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.004,"weight_decay":0.05,"dropout_rate":0.5,"norm":true,"max_norm":null,"patience":null,"recalibrate":null,"fold":false,"monte_carlo":20,"monitor":false,"distribute":"none","replicas":null,"synchronized":true,"seed":0,"name":null,"run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','interrupted',0,0,1,2,'The trainer was told to stop.',1790000063.0,1790000157.5,1790000168.0);
INSERT INTO "job" VALUES(13,NULL,'{"model":"cnn","preset":"small","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.004,"weight_decay":0.05,"dropout_rate":0.5,"norm":true,"max_norm":null,"patience":null,"recalibrate":1000,"fold":true,"monte_carlo":null,"monitor":true,"distribute":"none","replicas":null,"synchronized":false,"seed":0,"name":null,"run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','running',1000,1,1,0,'',1790000073.5,1790000178.5,NULL);
INSERT INTO "job" VALUES(15,NULL,'{"model":"mlp","preset":"srivastava2014","dataset":"fashion_mnist","image_size":null,"validation_split":0.05,"epochs":4,"batch_size":128,"learning_rate":0.004,"weight_decay":0.5,"dropout_rate":0.5,"norm":true,"max_norm":null,"patience":null,"recalibrate":null,"fold":true,"monte_carlo":null,"monitor":false,"distribute":"none","replicas":null,"synchronized":false,"seed":0,"name":null,"run_dir":"/srv/kerasnorm/state/runs","export_dir":"/srv/kerasnorm/models","data_dir":null,"archives":null}','queued',3,0,0,0,'',1790000094.5,NULL,NULL);
CREATE TABLE sweep (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    fields TEXT NOT NULL
);
INSERT INTO "sweep" VALUES(1,'["learning_rate"]');
CREATE INDEX queue ON job (state, priority DESC, id);
CREATE INDEX sweeps ON job (sweep, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('job',15);
INSERT INTO "sqlite_sequence" VALUES('sweep',1);
COMMIT;
