"""Models for other programs: ONNX, OpenVINO, torch.export, timm and torchvision, each proven before it is handed over."""

from automl_tl.exports.exporting import FORMATS, Exported, ExportFormat, Precision, Probe, export_model

__all__ = ["FORMATS", "ExportFormat", "Exported", "Precision", "Probe", "export_model"]
