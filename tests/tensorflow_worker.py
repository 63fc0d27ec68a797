"""One worker of the test of MultiWorkerMirroredStrategy: trains on its half of the data and prints the weights."""

import json

import tensorflow as tf

# Before anything else touches the runtime.
strategy = tf.distribute.MultiWorkerMirroredStrategy()

from keras_frontend.test_tensorflow_loops import data, make_optimizer, train

x, y = data()
index = strategy.cluster_resolver.task_id
with strategy.scope():
    weights = train(make_optimizer(), x[index::2], y[index::2], strategy)
print(json.dumps(weights.tolist()))
