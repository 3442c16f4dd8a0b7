"""Exports for other programs: ONNX, OpenVINO, torch.export, web pages, timm and torchvision, each verified in a new process."""

from automl_tl.exports.exporter import Exported, ExportReference, export_model
from automl_tl.exports.formats import FORMATS, ExportFormat, Precision

__all__ = ["FORMATS", "ExportFormat", "ExportReference", "Exported", "Precision", "export_model"]
