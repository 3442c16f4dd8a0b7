"""AutoML for image classification by transfer learning."""
