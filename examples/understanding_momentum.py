"""The training loop of "Understanding Momentum in Deep Learning", as written there, on handwritten digits.

Only the optimizer is another: `polyak.keras.Momentum` in the place of `tf.keras.optimizers.SGD`. The velocity that the text
describes, v = m * v + g, is the one that is kept, and the weights move by w = w - learning_rate * v.

    python examples/understanding_momentum.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # GradientTape is TensorFlow's

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import polyak.keras


def main(num_epochs: int = 5) -> list[float]:
    """Train; returns the mean loss of each epoch."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    train_dataset = tf.data.Dataset.from_tensor_slices(((images / 16).astype("float32"), labels))
    train_dataset = train_dataset.shuffle(len(labels), seed=0).batch(32)

    # Define our model, loss function, optimizer, etc.
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = polyak.keras.Momentum(learning_rate=0.1, momentum=0.9)

    # Train the model using Momentum optimization
    losses = []
    for epoch in range(num_epochs):  # Loop through the specified number of epochs
        mean = keras.metrics.Mean()
        for x, y in train_dataset:  # Loop through the training dataset
            with tf.GradientTape() as tape:  # Use GradientTape to track the operations for automatic differentiation
                predictions = model(x)  # Make predictions using the model
                loss = loss_fn(y, predictions)  # Calculate the loss between the predictions and the actual labels

            # Calculate the gradient of our loss function with respect to each weight
            gradients = tape.gradient(loss, model.trainable_variables)

            # Update our weights using Momentum optimization
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
            mean.update_state(loss)
        losses.append(float(mean.result()))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main()
