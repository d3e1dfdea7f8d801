# SPDX-License-Identifier: Apache-2.0
"""Short names of roles and features that Install-WindowsFeature knows.

Windows Server 2008 R2 to 2016 together, since an extension is made for more than one of them [DOC Get-WindowsFeature;
from knowledge, so a missing name is a warning and never an error].
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

_NAMES: Final = """
AD-Certificate ADCS-Cert-Authority ADCS-Enroll-Web-Pol ADCS-Enroll-Web-Svc ADCS-Web-Enrollment ADCS-Device-Enrollment
ADCS-Online-Cert AD-Domain-Services ADFS-Federation ADFS-Proxy ADFS-Web-Agents ADFS-Claims ADFS-Windows-Token ADLDS
ADRMS ADRMS-Server ADRMS-Identity AD-Federation-Services AS-NET-Framework AS-Ent-Services AS-TCP-Port-Sharing
AS-Web-Support AS-WAS-Support AS-HTTP-Activation AS-MSMQ-Activation AS-Named-Pipes AS-TCP-Activation
AS-Dist-Transaction AS-Incoming-Trans AS-Outgoing-Trans AS-WS-Atomic Application-Server DHCP DNS Fax
FileAndStorage-Services File-Services FS-FileServer FS-BranchCache FS-Data-Deduplication FS-DFS-Namespace
FS-DFS-Replication FS-DFS FS-Resource-Manager FS-VSS-Agent FS-iSCSITarget-Server iSCSITarget-VSS-VDS FS-NFS-Service
FS-NFS-Services FS-SyncShareService FS-Search-Service FS-Win2003-Services FS-Indexing-Service Storage-Services
FS-SMB1 FS-SMBBW HostGuardianServiceRole Hyper-V MultiPointServerRole NetworkController NPAS NPAS-Policy-Server
NPAS-Health NPAS-Host-Cred NPAS-RRAS-Services NPAS-RRAS NPAS-Routing Print-Services Print-Server Print-Scan-Server
Print-Internet Print-LPD-Service RemoteAccess DirectAccess-VPN Routing Web-Application-Proxy Remote-Desktop-Services
RDS-RD-Server RDS-Connection-Broker RDS-Gateway RDS-Licensing RDS-Virtualization RDS-Web-Access VolumeActivation
Web-Server Web-WebServer Web-Common-Http Web-Default-Doc Web-Dir-Browsing Web-Http-Errors Web-Static-Content
Web-Http-Redirect Web-DAV-Publishing Web-Health Web-Http-Logging Web-Custom-Logging Web-Log-Libraries Web-ODBC-Logging
Web-Request-Monitor Web-Http-Tracing Web-Performance Web-Stat-Compression Web-Dyn-Compression Web-Security
Web-Filtering Web-Basic-Auth Web-CertProvider Web-Client-Auth Web-Digest-Auth Web-Cert-Auth Web-IP-Security
Web-Url-Auth Web-Windows-Auth Web-App-Dev Web-Net-Ext Web-Net-Ext45 Web-AppInit Web-ASP Web-Asp-Net Web-Asp-Net45
Web-CGI Web-ISAPI-Ext Web-ISAPI-Filter Web-Includes Web-WebSockets Web-Ftp-Server Web-Ftp-Service Web-Ftp-Ext
Web-Ftp-Publishing Web-WHC Web-Mgmt-Tools Web-Mgmt-Console Web-Mgmt-Compat Web-Metabase Web-Lgcy-Mgmt-Console
Web-Lgcy-Scripting Web-WMI Web-Scripting-Tools Web-Mgmt-Service WDS WDS-Deployment WDS-Transport ServerEssentialsRole
UpdateServices UpdateServices-WidDB UpdateServices-Services UpdateServices-DB UpdateServices-API UpdateServices-RSAT
UpdateServices-UI OOB-WSUS NET-Framework NET-Framework-Core NET-Framework-Features NET-HTTP-Activation
NET-Non-HTTP-Activ NET-Win-CFAC NET-Framework-45-Features NET-Framework-45-Core NET-Framework-45-ASPNET
NET-WCF-Services45 NET-WCF-HTTP-Activation45 NET-WCF-MSMQ-Activation45 NET-WCF-Pipe-Activation45
NET-WCF-TCP-Activation45 NET-WCF-TCP-PortSharing45 BITS BITS-IIS-Ext BITS-Compact-Server BITS-LWDLServer BitLocker
BitLocker-NetworkUnlock BranchCache NFS-Client Containers Data-Center-Bridging Direct-Play DirectPlay EnhancedStorage
Failover-Clustering GPMC DiskIo-QoS Web-WHC Internet-Print-Client IPAM IPAM-Client-Feature ISNS Isolated-UserMode
LPR-Port-Monitor ManagementOdata Server-Media-Foundation MSMQ MSMQ-Services MSMQ-Server MSMQ-Directory
MSMQ-HTTP-Support MSMQ-Triggers MSMQ-Multicasting MSMQ-Routing MSMQ-DCOM Multipath-IO MultiPath-IO
MultiPoint-Connector MultiPoint-Connector-Services MultiPoint-Tools NLB PNRP qWave CMAK Remote-Assistance RDC RSAT
RSAT-Feature-Tools RSAT-SMTP RSAT-Feature-Tools-BitLocker RSAT-Feature-Tools-BitLocker-RemoteAdminTool
RSAT-Feature-Tools-BitLocker-BdeAducExt RSAT-Bits-Server RSAT-DataCenterBridging-LLDP-Tools RSAT-Clustering
RSAT-Clustering-Mgmt RSAT-Clustering-PowerShell RSAT-Clustering-AutomationServer RSAT-Clustering-CmdInterface RSAT-NLB
RSAT-Shielded-VM-Tools RSAT-SNMP RSAT-WINS RSAT-Role-Tools RSAT-AD-Tools RSAT-AD-PowerShell RSAT-ADDS
RSAT-AD-AdminCenter RSAT-ADDS-Tools RSAT-NIS RSAT-ADLDS RSAT-Hyper-V-Tools Hyper-V-Tools Hyper-V-PowerShell
RSAT-RDS-Tools RSAT-RDS RSAT-RDS-RemoteApp RSAT-RDS-Gateway RSAT-RDS-Licensing RSAT-RDS-Licensing-Diagnosis-UI
RSAT-RDS-Conn-Broker RDS-Licensing-UI RSAT-NetworkController RSAT-ADCS RSAT-ADCS-Mgmt RSAT-Online-Responder RSAT-ADRMS
RSAT-DHCP RSAT-DNS-Server RSAT-Fax RSAT-File-Services RSAT-DFS-Mgmt-Con RSAT-FSRM-Mgmt RSAT-FSRM-Mgmt-Tools
RSAT-NFS-Admin RSAT-CoreFile-Mgmt RSAT-NPAS RSAT-Print-Services RSAT-RemoteAccess RSAT-RemoteAccess-Mgmt
RSAT-RemoteAccess-PowerShell RSAT-VA-Tools RSAT-Web-Server RSAT-System-Insights WDS-AdminPack RPC-over-HTTP-Proxy
Setup-and-Boot-Event-Collection Simple-TCPIP SMTP-Server SNMP-Service SNMP-WMI-Provider SoftwareLoadBalancer
Storage-Replica Storage-Mgr-SANS Subsystem-UNIX-Apps Telnet-Client Telnet-Server TFTP-Client VM-Tools
FabricShieldedTools
Biometric-Framework WBF Windows-Defender-Features Windows-Defender Windows-Defender-Gui Windows-Identity-Foundation
Windows-Internal-DB PowerShellRoot PowerShell PowerShell-V2 DSC-Service PowerShell-ISE WindowsPowerShellWebAccess WAS
WAS-Process-Model WAS-NET-Environment WAS-Config-APIs Search-Service Windows-Server-Backup Backup-Features Backup
Backup-Tools Migration WindowsStorageManagementService Windows-TIFF-IFilter TIFF-IFilter WinRM-IIS-Ext WINS
Wireless-Networking WoW64-Support XPS-Viewer Desktop-Experience Server-Gui-Mgmt-Infra Server-Gui-Shell
User-Interfaces-Infra InkAndHandwritingServices Ink-Handwriting IH-Ink-Support IH-Handwriting FileSrv-VSS PSync
"""

FEATURES: Final = {name.lower(): name for name in _NAMES.split()}


def is_feature(name: str) -> bool:
    """Whether a name is known; names are compared without case, as the cmdlet does."""
    return name.strip().lower() in FEATURES


def nearest(name: str) -> str | None:
    """A known name that looks like this one."""
    near = get_close_matches(name.strip().lower()[:80], FEATURES, n=1, cutoff=0.7)
    return FEATURES[near[0]] if near else None
