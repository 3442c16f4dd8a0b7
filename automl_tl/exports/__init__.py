"""Exports for other programs: ONNX, OpenVINO, torch.export, timm and torchvision, each verified in a new process."""

from automl_tl.exports.exporter import FORMATS, Exported, ExportFormat, ExportReference, Precision, export_model

__all__ = ["FORMATS", "ExportFormat", "ExportReference", "Exported", "Precision", "export_model"]
